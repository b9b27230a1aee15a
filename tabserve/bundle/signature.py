"""Who signed a bundle: `bundle.sig`, in the form of OpenSSF model signing 1.0.

The file is a Sigstore bundle. Its DSSE envelope holds an in-toto statement with the SHA-256 of every other file. What
`bundle sign` writes passes `model_signing verify`, and what `model_signing sign` writes is verified here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec

from tabserve import extras
from tabserve.bundle import manifest
from tabserve.bundle.errors import BundleError
from tabserve.bundle.manifest import MANIFEST, SIGNATURE, Manifest

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    PublicKey: TypeAlias = ec.EllipticCurvePublicKey

MAX_BYTES = 1 << 20
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
CURVES = ("secp256r1", "secp384r1", "secp521r1")

_SIGN = "Sign the bundle with `tabserve bundle sign`, or have it signed by whom you trust."
_GIVE = (
    "Give a PEM file with public keys, or with certificates of authorities: keys on the curves P-256, P-384 or P-521."
)
_PEM = re.compile(rb"-----BEGIN (PUBLIC KEY|CERTIFICATE)-----.+?-----END \1-----", re.DOTALL)


class _Camel(msgspec.Struct, rename="camel", frozen=True):
    pass


class Hint(_Camel, frozen=True):
    """Which key it was: the SHA-256 of its PEM."""

    hint: str = ""


class Certificate(_Camel, frozen=True):
    """A certificate as DER."""

    raw_bytes: bytes


class Chain(_Camel, frozen=True):
    """The signer's certificate, then those that lead to an authority."""

    certificates: tuple[Certificate, ...]


class Material(_Camel, frozen=True, omit_defaults=True):
    """How to find out who signed: by a key, or by a chain of certificates."""

    public_key: Hint | None = None
    x509_certificate_chain: Chain | None = None
    tlog_entries: Sequence[object] = msgspec.field(default_factory=tuple)


class Signed(_Camel, frozen=True):
    """A signature, and the id of its key."""

    sig: bytes
    keyid: str = ""


class Envelope(_Camel, frozen=True):
    """What was signed (DSSE)."""

    payload: bytes
    payload_type: str
    signatures: tuple[Signed, ...]


class Signature(_Camel, frozen=True):
    """What `bundle.sig` holds."""

    media_type: str
    verification_material: Material
    dsse_envelope: Envelope


class Resource(msgspec.Struct, frozen=True):
    """A file and its digest in hex."""

    name: str
    algorithm: str
    digest: str


class Predicate(msgspec.Struct, frozen=True):
    """What was read, and how."""

    serialization: dict[str, object]
    resources: tuple[Resource, ...]


class Subject(msgspec.Struct, frozen=True):
    """The folder's name, and the digest of all digests."""

    name: str
    digest: dict[str, str]


class Statement(msgspec.Struct, frozen=True, rename={"type": "_type", "predicate_type": "predicateType"}):
    """An in-toto statement about a model's files."""

    type: str
    subject: tuple[Subject, ...]
    predicate_type: str
    predicate: Predicate


class Signers(NamedTuple):
    """Whom to trust: keys, and authorities of certificates."""

    file: str
    keys: tuple[PublicKey, ...]
    authorities: tuple[x509.Certificate, ...]


def verify(folder: Path, data: bytes, signed_by: str | os.PathLike[str]) -> Mapping[str, str]:
    """The signed SHA-256 of each file; data: what `bundle.json` holds, of which nothing has been parsed.

    signed_by: a PEM file with public keys, or authorities of certificates that are valid now. Raises BundleError.
    """
    signers = read_signers(signed_by)
    found = _read(folder / SIGNATURE)
    _verify_envelope(found, signers)
    files = _files(found.dsse_envelope.payload)
    if files.get(MANIFEST) != manifest.digest(data).removeprefix("sha256:"):
        raise BundleError(MANIFEST, "is not what was signed", _SIGN)
    return files


def verify_names(files: Mapping[str, str], contents: Manifest) -> None:
    """Refuse a manifest that has other files than were signed. Raises BundleError."""
    expected = {name: entry.sha256 for name, entry in contents.files.items()} | {MANIFEST: files[MANIFEST]}
    for name in sorted(expected.keys() | files.keys()):
        if expected.get(name) != files.get(name):
            problem = "is not what was signed" if name in files else "is not signed"
            raise BundleError(name, problem, _SIGN)


def read_signers(file: str | os.PathLike[str]) -> Signers:
    """Whom a PEM file says to trust. Raises BundleError."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ModuleNotFoundError as error:
        raise BundleError(SIGNATURE, "cannot be verified without cryptography", extras.how("serve")) from error
    name = str(file)
    try:
        blocks = [(found[1], found[0]) for found in _PEM.finditer(Path(file).read_bytes())]
        keys = tuple(serialization.load_pem_public_key(block) for kind, block in blocks if kind == b"PUBLIC KEY")
        authorities = tuple(x509.load_pem_x509_certificate(block) for kind, block in blocks if kind == b"CERTIFICATE")
    except OSError as error:
        raise BundleError(name, f"cannot be read: {error.strerror}", _GIVE) from error
    except ValueError as error:
        raise BundleError(name, f"holds no key or certificate: {error}", _GIVE) from error
    if not blocks:
        raise BundleError(name, "holds no public key and no certificate", _GIVE)
    known = tuple(key for key in keys if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVES)
    if len(known) < len(keys):
        raise BundleError(name, "holds a key of a kind that signs no bundles", _GIVE)
    return Signers(name, known, authorities)


def encoded(payload: bytes) -> bytes:
    """What is signed of a payload: DSSE's pre-authentication encoding (its protocol.md)."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def hash_of(key: PublicKey) -> hashes.HashAlgorithm:
    """The hash that goes with a key's curve."""
    from cryptography.hazmat.primitives import hashes

    return {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384()}.get(key.curve.name, hashes.SHA512())


def _read(path: Path) -> Signature:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise BundleError(SIGNATURE, "missing, so the bundle is not signed", _SIGN) from error
    except OSError as error:
        raise BundleError(SIGNATURE, f"cannot be read: {error.strerror}", _SIGN) from error
    if len(data) > MAX_BYTES:
        raise BundleError(SIGNATURE, f"over {MAX_BYTES} bytes", _SIGN)
    try:
        found = msgspec.json.decode(data, type=Signature)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BundleError(SIGNATURE, f"is no signature: {error}", _SIGN) from error
    for got, expected in ((found.media_type, MEDIA_TYPE), (found.dsse_envelope.payload_type, PAYLOAD_TYPE)):
        if got != expected:
            raise BundleError(SIGNATURE, f"expected {expected}, got {got!r}", _SIGN)
    if len(found.dsse_envelope.signatures) != 1:
        raise BundleError(SIGNATURE, f"expected one signature, got {len(found.dsse_envelope.signatures)}", _SIGN)
    return found


def _verify_envelope(found: Signature, signers: Signers) -> None:
    chain = found.verification_material.x509_certificate_chain
    keys: Sequence[PublicKey] = signers.keys if chain is None else [_certified(chain, signers)]
    if not any(_signed(found.dsse_envelope, key) for key in keys):
        raise BundleError(SIGNATURE, f"was not made by a key in {signers.file}" if chain is None else "is wrong", _SIGN)


def _signed(envelope: Envelope, key: PublicKey) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key.verify(envelope.signatures[0].sig, encoded(envelope.payload), ec.ECDSA(hash_of(key)))
    except InvalidSignature:
        return False
    return True


def _certified(chain: Chain, signers: Signers) -> PublicKey:
    """The key of a certificate that leads to an authority now, and may sign. Raises BundleError."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.verification import VerificationError

    if not signers.authorities:
        problem = f"was made with a certificate, and {signers.file} holds no authority"
        raise BundleError(SIGNATURE, problem, _GIVE)
    try:
        own, *others = [x509.load_der_x509_certificate(one.raw_bytes) for one in chain.certificates]
        _verify_dates(own)
        _verifier(signers.authorities).verify(own, others)
        _verify_usage(own)
    except (VerificationError, ValueError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(SIGNATURE, f"its certificate is not accepted: {error}", _SIGN) from error
    key = own.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise BundleError(SIGNATURE, "its certificate has a key of a kind that signs no bundles", _SIGN)
    return key


def _verifier(authorities: Sequence[x509.Certificate]) -> x509.verification.ClientVerifier:
    from cryptography import x509
    from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store

    # Authorities as RFC 5280 has them, also those for code alone; the signer's own certificate is looked at below.
    of_authorities = ExtensionPolicy.webpki_defaults_ca().may_be_present(
        x509.ExtendedKeyUsage, Criticality.AGNOSTIC, None
    )
    policies = PolicyBuilder().store(Store([*authorities]))
    return policies.extension_policies(
        ca_policy=of_authorities, ee_policy=ExtensionPolicy.permit_all()
    ).build_client_verifier()


def _verify_dates(own: x509.Certificate) -> None:
    now = datetime.now(UTC)
    if now > own.not_valid_after_utc:
        raise BundleError(SIGNATURE, f"its certificate expired on {own.not_valid_after_utc:%Y-%m-%d}", _SIGN)
    if now < own.not_valid_before_utc:
        raise BundleError(SIGNATURE, f"its certificate is valid from {own.not_valid_before_utc:%Y-%m-%d} on", _SIGN)


def _verify_usage(own: x509.Certificate) -> None:
    """Refuse a certificate that is for something else, such as TLS."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    usages = {type(one.value): one.value for one in own.extensions}
    key, extended = usages.get(x509.KeyUsage), usages.get(x509.ExtendedKeyUsage)
    signs = key.digital_signature if isinstance(key, x509.KeyUsage) else extended is not None
    if not signs or (isinstance(extended, x509.ExtendedKeyUsage) and ExtendedKeyUsageOID.CODE_SIGNING not in extended):
        raise BundleError(SIGNATURE, "its certificate is not for signing (codeSigning)", _SIGN)


def _files(payload: bytes) -> dict[str, str]:
    """The SHA-256 of each file in a statement that was signed. Raises BundleError."""
    try:
        statement = msgspec.json.decode(payload, type=Statement)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BundleError(SIGNATURE, f"signs no statement about files: {error}", _SIGN) from error
    method = statement.predicate.serialization.get("method")
    for got, expected in (
        (statement.type, STATEMENT_TYPE),
        (statement.predicate_type, PREDICATE_TYPE),
        (method, "files"),
        *((one.algorithm, "sha256") for one in statement.predicate.resources),
    ):
        if got != expected:
            raise BundleError(SIGNATURE, f"expected {expected}, got {got!r}", _SIGN)
    return {one.name: one.digest for one in statement.predicate.resources}
