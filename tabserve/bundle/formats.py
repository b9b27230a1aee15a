"""The format of a model file, from its first bytes; its name proves nothing."""

from __future__ import annotations

from pathlib import Path

from tabserve.bundle.errors import BundleError

# A zip is skops (its schema.json says so when it is read). Reading any output of joblib.dump, even compressed,
# unpickles.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"{L", "ubj"),
    (b'{"', "json"),
    (b"{ ", "json"),
    (b"{\n", "json"),
    (b"tree\n", "lightgbm"),
    (b"tree\r\n", "lightgbm"),
    (b"PK\x03\x04", "skops"),
    (b"\x80", "joblib"),
    (b"\x78", "joblib"),
    (b"\x1f\x8b", "joblib"),
    (b"BZh", "joblib"),
    (b"\xfd7zXZ\x00", "joblib"),
    (b"]\x00\x00", "joblib"),
    (b"\x04\x22\x4d\x18", "joblib"),
    (b"\x08", "onnx"),
)


def recognise(path: Path) -> str:
    """The format that a file's first bytes show: ubj, json, lightgbm, skops, joblib (any pickle), onnx or `unknown`."""
    with path.open("rb") as file:
        head = file.read(8)
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "unknown")


def verify(path: Path, expected: str, *, allow_joblib: bool) -> None:
    """Refuse a file whose format is not the manifest's, or a pickle that was not allowed.

    Raises BundleError.
    """
    found = recognise(path)
    if found != expected:
        got = "a pickle" if found == "joblib" else f"{found} content"
        raise BundleError(path.name, f"expected {expected} content, got {got}", "Save the bundle again.")
    if expected == "joblib" and not allow_joblib:
        raise BundleError(
            path.name,
            "loading a joblib file runs its author's code",
            "Save it as skops, or allow joblib if you trust its author (allow_joblib=True).",
        )
