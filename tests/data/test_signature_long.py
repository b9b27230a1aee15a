"""Signatures are those of OpenSSF's model-signing: what either signs, the other verifies (make long-signature).

The tool runs in an environment of its own, which is installed from model-signing.lock.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sklearn.linear_model import LogisticRegression

import tabserve.bundle
from benchmarks import environments
from tabserve.bundle import BundleError
from tests.certificates import Authority
from tests.unit.bundles import saved
from tests.unit.test_bundle_signature import Keys, pair

pytestmark = pytest.mark.long
LOCK = Path(__file__).with_name("model-signing.lock")
CURVES = [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()]


@pytest.fixture(scope="module")
def tool() -> Path:
    return environments.of_lock(LOCK).with_name("model_signing")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(LogisticRegression(), tmp_path_factory.mktemp("original"), engine="sklearn").path


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def run(tool: Path, *arguments: object) -> tuple[int, str]:
    """The tool's status, and what it said."""
    done = subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def verified(tool: Path, folder: Path, keys: Keys) -> tuple[int, str]:
    """What the tool says of a signature by a key."""
    return run(tool, "verify", "key", folder, "--signature", folder / "bundle.sig", "--public_key", keys.public)


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_the_tool_verifies_what_is_signed_here_with_a_key(
    tool: Path, folder: Path, tmp_path: Path, curve: ec.EllipticCurve
) -> None:
    keys = pair(tmp_path, "own", curve)
    tabserve.bundle.sign(folder, keys.private)
    status, said = verified(tool, folder, keys)

    assert status == 0, said
    assert verified(tool, folder, pair(tmp_path, "other", curve))[0] != 0
    (folder / "schema.yaml").write_text("")
    status, said = verified(tool, folder, keys)
    assert status != 0
    assert "schema.yaml" in said


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_what_the_tool_signs_with_a_key_is_verified_here(
    tool: Path, folder: Path, tmp_path: Path, curve: ec.EllipticCurve
) -> None:
    keys = pair(tmp_path, "own", curve)
    status, said = run(tool, "sign", "key", folder, "--private_key", keys.private, "--signature", folder / "bundle.sig")

    assert status == 0, said
    assert tabserve.bundle.load(folder, signed_by=keys.public)
    findings = tabserve.bundle.check(folder, signed_by=keys.public)
    assert all(one.ok for one in findings)
    assert f"signed as {keys.public} says" in findings[0].detail
    with pytest.raises(BundleError, match="was not made by a key"):
        tabserve.bundle.load(folder, signed_by=pair(tmp_path, "other", curve).public)


def test_the_tool_verifies_what_is_signed_here_with_a_certificate(
    tool: Path, folder: Path, authority: Authority
) -> None:
    signer = authority.issue("signer", signs=True)
    tabserve.bundle.sign(folder, signer.key, signer.cert)
    options = ["--signature", folder / "bundle.sig", "--certificate_chain", authority.file]
    status, said = run(tool, "verify", "certificate", folder, *options)

    assert status == 0, said


def test_what_the_tool_signs_with_a_certificate_is_verified_here(
    tool: Path, folder: Path, authority: Authority
) -> None:
    signer = authority.issue("signer", signs=True)
    options = ["--private_key", signer.key, "--signing_certificate", signer.cert, "--certificate_chain", authority.file]
    status, said = run(tool, "sign", "certificate", folder, *options, "--signature", folder / "bundle.sig")

    assert status == 0, said
    assert tabserve.bundle.load(folder, signed_by=authority.file)


def test_a_file_that_the_tool_left_out_is_not_signed(tool: Path, folder: Path, tmp_path: Path) -> None:
    keys = pair(tmp_path, "own", CURVES[0])
    options = ["--private_key", keys.private, "--signature", folder / "bundle.sig"]
    status, said = run(tool, "sign", "key", folder, *options, "--ignore-paths", folder / "model.skops")

    assert status == 0, said
    with pytest.raises(BundleError, match=r"^model\.skops: is not signed"):
        tabserve.bundle.load(folder, signed_by=keys.public)
