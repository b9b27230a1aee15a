"""Sign a bundle, in the form of OpenSSF model signing 1.0."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tabserve.bundle import loading, signature
from tabserve.bundle.errors import BundleError
from tabserve.bundle.manifest import MANIFEST, SIGNATURE
from tabserve.bundle.signature import Certificate, Chain, Hint, Material, Resource, Statement, Subject

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

_GIVE = "Give a private key as PEM, without a password, on the curve P-256, P-384 or P-521."


def sign(
    path: str | os.PathLike[str], key: str | os.PathLike[str], certificates: str | os.PathLike[str] | None = None
) -> Path:
    """Write `bundle.sig` into a bundle whose files are as it was saved, and return its path.

    key: a PEM file with the private key. certificates: a PEM file with the key's certificate, and after it those that
    lead to its authority; without one the bundle is verified by the public key. Raises BundleError.
    """
    private, folder = _private(key), Path(path)
    contents, digest = loading.read_manifest(folder, None)
    loading.verify_files(folder, contents)
    files = {name: entry.sha256 for name, entry in contents.files.items()} | {MANIFEST: digest.removeprefix("sha256:")}
    payload = msgspec.json.encode(_statement(folder.resolve().name, files))
    public = private.public_key()
    material = _by_key(public) if certificates is None else _by_chain(public, certificates)
    made = signature.Signature(
        media_type=signature.MEDIA_TYPE,
        verification_material=material,
        dsse_envelope=signature.Envelope(
            payload=payload,
            payload_type=signature.PAYLOAD_TYPE,
            signatures=(signature.Signed(sig=_signed(private, payload)),),
        ),
    )
    target = folder / SIGNATURE
    target.write_bytes(msgspec.json.encode(made))
    return target


def _statement(name: str, files: dict[str, str]) -> Statement:
    """The statement about files, in the order of their names."""
    resources = tuple(Resource(one, "sha256", files[one]) for one in sorted(files))
    root = hashlib.sha256(b"".join(bytes.fromhex(one.digest) for one in resources)).hexdigest()
    how = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [SIGNATURE]}
    return Statement(
        type=signature.STATEMENT_TYPE,
        subject=(Subject(name, {"sha256": root}),),
        predicate_type=signature.PREDICATE_TYPE,
        predicate=signature.Predicate(how, resources),
    )


def _private(file: str | os.PathLike[str]) -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        found = serialization.load_pem_private_key(Path(file).read_bytes(), None)
    except OSError as error:
        raise BundleError(str(file), f"cannot be read: {error.strerror}", _GIVE) from error
    except (ValueError, TypeError) as error:
        raise BundleError(str(file), f"holds no private key that can be read: {error}", _GIVE) from error
    if not isinstance(found, ec.EllipticCurvePrivateKey) or found.curve.name not in signature.CURVES:
        raise BundleError(str(file), "holds a key of a kind that signs no bundles", _GIVE)
    return found


def _signed(private: ec.EllipticCurvePrivateKey, payload: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ec

    return private.sign(signature.encoded(payload), ec.ECDSA(signature.hash_of(private.public_key())))


def _by_key(public: ec.EllipticCurvePublicKey) -> Material:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    text = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return Material(public_key=Hint(hashlib.sha256(text).hexdigest()))


def _by_chain(public: ec.EllipticCurvePublicKey, file: str | os.PathLike[str]) -> Material:
    from cryptography.hazmat.primitives.serialization import Encoding

    found = signature.read_signers(file).authorities
    if not found or found[0].public_key() != public:
        raise BundleError(str(file), "does not begin with the key's certificate", "Give its certificate first.")
    return Material(
        x509_certificate_chain=Chain(tuple(Certificate(raw_bytes=one.public_bytes(Encoding.DER)) for one in found))
    )
