"""Signatures of bundles: who is trusted, and that nothing is parsed before (the other tool: test_signature_long.py)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.hazmat.primitives.serialization import PublicFormat as Public
from sklearn.linear_model import LogisticRegression

import tabserve.bundle
from tabserve.bundle import BundleError, signature
from tabserve.cli import main
from tests.certificates import Authority
from tests.serving import START_SECONDS, start
from tests.unit.bundles import resealed, saved

FILES = ("bundle.json", "schema.yaml", "reference.npz", "model.skops")


class Keys(NamedTuple):
    """The files of a key pair."""

    private: Path
    public: Path


def pair(folder: Path, name: str, curve: ec.EllipticCurve) -> Keys:
    """A new key pair."""
    key = ec.generate_private_key(curve)
    found = Keys(folder / f"{name}.key", folder / f"{name}.pub")
    found.private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    found.public.write_bytes(key.public_key().public_bytes(Encoding.PEM, Public.SubjectPublicKeyInfo))
    return found


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return pair(tmp_path_factory.mktemp("keys"), "own", ec.SECP256R1())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Path:
    folder = saved(LogisticRegression(), tmp_path_factory.mktemp("original"), engine="sklearn").path
    tabserve.bundle.sign(folder, keys.private)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A signed bundle."""
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def refused(folder: Path, match: str, signed_by: Path) -> BundleError:
    with pytest.raises(BundleError, match=match) as caught:
        tabserve.bundle.load(folder, signed_by=signed_by)
    return caught.value


def test_a_signed_bundle_is_loaded_and_has_the_same_digest(folder: Path, keys: Keys) -> None:
    unsigned = tabserve.bundle.load(folder).digest

    assert tabserve.bundle.load(folder, signed_by=keys.public).digest == unsigned
    (folder / "bundle.sig").unlink()
    assert tabserve.bundle.load(folder).digest == unsigned


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_every_curve_signs(folder: Path, tmp_path: Path, curve: ec.EllipticCurve) -> None:
    made = pair(tmp_path, "made", curve)
    tabserve.bundle.sign(folder, made.private)

    assert tabserve.bundle.load(folder, signed_by=made.public).manifest.name == "m"


def test_one_of_several_keys_is_enough(folder: Path, keys: Keys, tmp_path: Path) -> None:
    new = pair(tmp_path, "new", ec.SECP384R1())
    both = tmp_path / "both.pem"
    both.write_bytes(new.public.read_bytes() + keys.public.read_bytes())

    assert tabserve.bundle.load(folder, signed_by=both)


def test_an_unsigned_bundle_is_refused_and_the_remedy_works(folder: Path, keys: Keys) -> None:
    (folder / "bundle.sig").unlink()
    error = refused(folder, r"^bundle\.sig: missing, so the bundle is not signed", keys.public)
    assert "tabserve bundle sign" in error.remedy
    done = CliRunner().invoke(main, ["bundle", "sign", str(folder), "--key", str(keys.private)])

    assert done.exit_code == 0, done.output
    assert tabserve.bundle.load(folder, signed_by=keys.public)


def test_another_key_is_refused(folder: Path, tmp_path: Path) -> None:
    other = pair(tmp_path, "other", ec.SECP256R1())
    refused(folder, r"^bundle\.sig: was not made by a key in .*other\.pub", other.public)


@pytest.mark.parametrize("name", FILES)
def test_an_altered_file_is_refused_by_name(folder: Path, keys: Keys, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    refused(folder, rf"^{name}: (is not what was signed|expected sha256)", keys.public)


@pytest.mark.parametrize("name", FILES[1:])
def test_a_file_that_was_altered_and_sealed_again_is_refused(folder: Path, keys: Keys, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes() + b"\n")
    resealed(folder)
    refused(folder, r"^bundle\.json: is not what was signed", keys.public)


def test_a_file_that_was_added_is_refused_by_name(folder: Path, keys: Keys) -> None:
    (folder / "sitecustomize.py").write_text("")
    refused(folder, "^sitecustomize.py: not in the manifest", keys.public)


@pytest.mark.parametrize("remove_signature", [True, False])
def test_nothing_is_parsed_before(folder: Path, keys: Keys, remove_signature: bool) -> None:
    (folder / "bundle.json").write_text("[" * 100)
    with pytest.raises(BundleError, match=r"^bundle\.json: not a manifest"):
        tabserve.bundle.load(folder)
    if remove_signature:
        (folder / "bundle.sig").unlink()
    refused(folder, "is not signed" if remove_signature else "is not what was signed", keys.public)


def test_a_signature_of_some_files_is_refused_by_name(folder: Path, keys: Keys) -> None:
    contents = tabserve.bundle.load(folder).manifest
    signed = signature.verify(folder, (folder / "bundle.json").read_bytes(), keys.public)
    some = {name: digest for name, digest in signed.items() if name != "model.skops"}

    signature.verify_names(signed, contents)
    with pytest.raises(BundleError, match=r"^model\.skops: is not signed"):
        signature.verify_names(some, contents)


def test_a_chain_to_an_authority_is_accepted(folder: Path, authority: Authority) -> None:
    signer = authority.issue("signer", signs=True)
    tabserve.bundle.sign(folder, signer.key, signer.cert)

    assert tabserve.bundle.load(folder, signed_by=authority.file)


@pytest.mark.parametrize(
    ("signs", "expired", "match"),
    [(True, True, r"its certificate expired on 20\d\d-"), (False, False, "its certificate is not for signing")],
    ids=["expired", "of a server"],
)
def test_an_unfit_certificate_is_refused(
    folder: Path, authority: Authority, signs: bool, expired: bool, match: str
) -> None:
    signer = authority.issue("unfit", signs=signs, expired=expired)
    tabserve.bundle.sign(folder, signer.key, signer.cert)
    refused(folder, rf"^bundle\.sig: {match}", authority.file)


def test_a_certificate_of_another_authority_is_refused(folder: Path, authority: Authority, tmp_path: Path) -> None:
    signer = Authority(tmp_path, "other").issue("signer", signs=True)
    tabserve.bundle.sign(folder, signer.key, signer.cert)
    refused(folder, r"^bundle\.sig: its certificate is not accepted: ", authority.file)


def test_a_key_is_no_authority_and_an_authority_no_key(folder: Path, keys: Keys, authority: Authority) -> None:
    refused(folder, r"^bundle\.sig: was not made by a key in ", authority.file)
    signer = authority.issue("signer", signs=True)
    tabserve.bundle.sign(folder, signer.key, signer.cert)
    refused(folder, r"^bundle\.sig: was made with a certificate, and .* holds no authority", keys.public)


def changed(change: Callable[[dict[str, object]], object]) -> Callable[[Path], object]:
    """A change of what `bundle.sig` holds."""

    def make(path: Path) -> None:
        contents = msgspec.json.decode(path.read_bytes())
        change(contents)
        path.write_bytes(msgspec.json.encode(contents))

    return make


@pytest.mark.parametrize(
    ("break_it", "match"),
    [
        (lambda path: path.write_text("[" * 10_000), "is no signature"),
        (lambda path: path.write_bytes(b" " * (1 << 20) + b" "), "over 1048576 bytes"),
        (changed(lambda found: found.update(mediaType="text/plain")), "expected application/vnd.dev.sigstore"),
        (changed(lambda found: found["dsseEnvelope"].update(payload="e30=")), "was not made by a key"),  # type: ignore[attr-defined]
        (changed(lambda found: found["dsseEnvelope"].update(signatures=[])), "expected one signature, got 0"),  # type: ignore[attr-defined]
        (lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "cannot be read"),
    ],
)
def test_what_is_no_signature_is_refused(
    folder: Path, keys: Keys, break_it: Callable[[Path], object], match: str
) -> None:
    break_it(folder / "bundle.sig")
    refused(folder, rf"^bundle\.sig: {match}", keys.public)


def test_files_that_hold_nobody_to_trust_are_named(folder: Path, keys: Keys, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    refused(folder, "other.pem: cannot be read", other)
    other.write_text("nothing")
    refused(folder, "other.pem: holds no public key and no certificate", other)
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    other.write_bytes(public.public_bytes(Encoding.PEM, Public.SubjectPublicKeyInfo))
    refused(folder, "other.pem: holds a key of a kind that signs no bundles", other)


def test_only_a_whole_bundle_is_signed_and_only_with_a_key_that_can_be_read(folder: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    private = ec.generate_private_key(ec.SECP256R1())
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    with pytest.raises(BundleError, match=r"key\.pem: holds no private key that can be read"):
        tabserve.bundle.sign(folder, key)
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "schema.yaml").write_text("")
    with pytest.raises(BundleError, match=r"schema\.yaml: expected \d+ bytes, got 0"):
        tabserve.bundle.sign(folder, key)


def test_a_certificate_of_another_key_is_not_used(folder: Path, keys: Keys, authority: Authority) -> None:
    with pytest.raises(BundleError, match="does not begin with the key's certificate"):
        tabserve.bundle.sign(folder, keys.private, authority.file)


def test_check_verifies(folder: Path, keys: Keys) -> None:
    (folder / "bundle.sig").unlink()
    done = CliRunner().invoke(main, ["bundle", "check", str(folder), "--verify", str(keys.public)])

    assert done.exit_code == 1
    assert "bundle.sig: missing" in done.output


def test_a_service_ends_with_the_reason_in_its_last_line(folder: Path, keys: Keys, tmp_path: Path) -> None:
    (folder / "bundle.sig").unlink()
    options = [f"--model_dir={folder}", f"--trust_public_key={keys.public}", "--log_format=json"]
    service = start("tabserve_predictor", *options, log=tmp_path / "log")

    assert service.process.wait(START_SECONDS) == 1
    (last,) = service.told()
    assert last["event"] == "start_failed"
    assert last["message"].startswith("bundle.sig: missing, so the bundle is not signed")
