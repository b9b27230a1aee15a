"""What a release is made of: bills of materials of images, reproducible archives, provenance, advisories."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from release import advisories, images, packing, provenance, sbom
from release.__main__ import main
from tests.serving import ROOT

NUMPY = "opt/tabserve/lib/python3.13/site-packages/numpy-2.5.5.dist-info/METADATA"
STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.41-12

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""
FILES = {
    NUMPY: "Metadata-Version: 2.4\nName: NumPy\nVersion: 2.5.5\n\nText\nName: other\n",
    "opt/tabserve/lib/python3.13/site-packages/typing_extensions-4.dist-info/METADATA": (
        "Metadata-Version: 2.4\nName: typing_extensions\nVersion: 4\n"
    ),
    "opt/tabserve/lib/python3.13/site-packages/numpy/__init__.py": "",
    "opt/tabserve/pyvenv.cfg": "home = /usr/bin\nversion = 3.13.5\n",
    "opt/app/tabserve/__init__.py": '__version__ = "0.2.0"\n',
    "var/lib/dpkg/status": STATUS,
    "usr/lib/os-release": 'ID=debian\nVERSION_ID="13"\n',
}
PURLS = {
    "pkg:pypi/numpy@2.5.5",
    "pkg:pypi/typing-extensions@4",
    "pkg:generic/python@3.13.5",
    "pkg:pypi/tabserve@0.2.0",
    "pkg:deb/debian/libc6@2.41-12?arch=amd64&distro=debian-13",
}


def root(folder: Path) -> Path:
    """The root folder of an image."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def packed(files: Mapping[str, str | bytes]) -> bytes:
    """Files as a tar."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return held.getvalue()


def archive(target: Path, *layers: Mapping[str, str], oci: bool) -> Path:
    """An image's archive, as buildah (oci) or docker writes it."""
    made = [packed(layer) for layer in layers]
    if oci:
        names = [f"blobs/sha256/{number}" for number, _ in enumerate(made)]
        blobs: dict[str, bytes] = dict(zip(names, map(gzip.compress, made), strict=True))
        manifest = {"layers": [{"digest": name.removeprefix("blobs/").replace("/", ":")} for name in names]}
        index = {"manifests": [{"digest": "sha256:m"}]}
        head = {"index.json": json.dumps(index), "blobs/sha256/m": json.dumps(manifest)}
    else:
        names = [f"{number}/layer.tar" for number, _ in enumerate(made)]
        blobs = dict(zip(names, made, strict=True))
        head = {"manifest.json": json.dumps([{"Layers": names}])}
    target.write_bytes(packed({**head, **blobs}))
    return target


def purls(image: Path) -> list[str]:
    return [each["purl"] for each in sbom.document(image, "tabserve-predictor", "0.2.0", 0)["components"]]


def test_a_bill_lists_what_is_in_a_root_folder_and_nothing_else_and_fits_its_schema(tmp_path: Path) -> None:
    made = sbom.document(root(tmp_path), "tabserve-predictor", "0.2.0", 1_764_500_000)

    assert {each["purl"] for each in made["components"]} == PURLS
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(made)) is None
    assert made == sbom.document(tmp_path, "tabserve-predictor", "0.2.0", 1_764_500_000)


@pytest.mark.parametrize("oci", [True, False])
def test_a_bill_of_an_archive_has_what_the_layers_leave(tmp_path: Path, oci: bool) -> None:
    gone = "opt/tabserve/lib/python3.13/site-packages/.wh.typing_extensions-4.dist-info"
    newer = {gone: "", "opt/app/tabserve/__init__.py": '__version__ = "0.3.0"\n'}
    image = archive(tmp_path / "image.tar", FILES, newer, oci=oci)
    left = PURLS - {"pkg:pypi/typing-extensions@4", "pkg:pypi/tabserve@0.2.0"} | {"pkg:pypi/tabserve@0.3.0"}

    assert set(purls(archive(tmp_path / "first.tar", FILES, oci=oci))) == PURLS
    assert set(purls(image)) == left
    emptied = archive(tmp_path / "emptied.tar", FILES, {"opt/.wh..wh..opq": ""}, oci=oci)
    assert purls(emptied) == ["pkg:deb/debian/libc6@2.41-12?arch=amd64&distro=debian-13"]


@pytest.mark.parametrize("base", ["", "python:3.13-slim", "python@sha256:12", f"python@sha512:{'0' * 64}"])
def test_a_base_image_without_its_digest_is_refused(tmp_path: Path, base: str) -> None:
    helm = tmp_path / "helm"
    helm.touch()
    options = ["--helm", str(helm), "--builder", "docker", "--base-image", base]
    done = CliRunner().invoke(main, [str(tmp_path / "dist"), *options])

    assert done.exit_code == 1
    assert "BASE_IMAGE: expected NAME@sha256:DIGEST" in done.output
    assert not (tmp_path / "dist").exists()
    images.verify_pinned(f"python@sha256:{'0' * 64}")


def test_a_release_wants_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "old.whl").touch()
    done = CliRunner().invoke(main, [str(tmp_path), "--helm", str(tmp_path / "old.whl")])

    assert done.exit_code == 1
    assert "expected an empty folder" in done.output


def test_an_archive_is_repacked_without_time_and_order() -> None:
    def made(names: str, time: int) -> bytes:
        held = io.BytesIO()
        with tarfile.open(fileobj=held, mode="w:gz") as tar:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size, member.mtime, member.uname = 1, time, str(time)
                tar.addfile(member, io.BytesIO(name.encode()))
        return held.getvalue()

    first, second = packing.repacked(made("abc", 1), 7), packing.repacked(made("cab", 2), 7)
    assert first == second
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        assert [(member.name, member.mtime) for member in tar] == [("a", 7), ("b", 7), ("c", 7)]


def test_checksums_and_provenance_name_every_file(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("b.tgz", "a.whl")]
    for path in files:
        path.write_text(path.name)
    (tmp_path / "SHA256SUMS").write_text(provenance.checksums(files))
    checked = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True)
    base = f"python@sha256:{'0' * 64}"
    made: dict[str, Any] = provenance.statement(files, "c0ffee", files[0], base)

    assert checked.stdout == "a.whl: OK\nb.tgz: OK\n"
    assert [each["name"] for each in made["subject"]] == ["a.whl", "b.tgz"]
    came = made["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [each["digest"] for each in came] == [
        {"gitCommit": "c0ffee"},
        {"sha256": provenance.digest(files[0])},
        {"sha256": "0" * 64},
    ]


def advisory(**affected: Any) -> dict[str, Any]:
    return {
        "id": "PYSEC-1",
        "summary": "bad",
        "affected": [{"package": {"ecosystem": "PyPI", "name": "A.b"}, **affected}],
    }


def within(*events: dict[str, str]) -> dict[str, Any]:
    return advisory(ranges=[{"type": "ECOSYSTEM", "events": list(events)}])


@pytest.mark.parametrize(
    ("known", "hit"),
    [
        (advisory(versions=["1.5"]), True),
        (advisory(versions=["1.50"]), False),
        (within({"introduced": "0"}, {"fixed": "1.5"}), False),
        (within({"introduced": "0"}, {"fixed": "1.10"}), True),
        (within({"introduced": "1.6"}), False),
        (within({"introduced": "0"}, {"last_affected": "1.5"}), True),
        (within({"introduced": "0"}, {"fixed": "1.1"}, {"introduced": "1.4"}, {"fixed": "1.6"}), True),
        ({**within({"introduced": "0"}), "withdrawn": "2026-01-01T00:00:00Z"}, False),
        ({"id": "GO-1", "affected": [{"package": {"ecosystem": "Go", "name": "a-b"}, "versions": ["1.5"]}]}, False),
    ],
)
def test_a_pin_that_an_advisory_names_is_found(tmp_path: Path, known: dict[str, Any], hit: bool) -> None:
    (tmp_path / "one.json").write_text(json.dumps(known))
    found = advisories.scan("a-b==1.5 \\\n    --hash=sha256:0\nother==1\n", tmp_path)

    assert found == ([advisories.Match("a-b", "1.5", "PYSEC-1", "bad")] if hit else [])


def test_the_lock_has_pins() -> None:
    pins = dict(advisories.pins((ROOT / "requirements.lock").read_text()))

    assert {"numpy", "pyyaml", "cryptography"} <= pins.keys()
