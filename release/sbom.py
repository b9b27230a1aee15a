"""What is in an image, as a CycloneDX bill of materials: its Python, its Python distributions and Debian's packages."""

from __future__ import annotations

import hashlib
import re
import uuid
from datetime import UTC, datetime
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

from release import images

_METADATA = re.compile(r"(?:.*/)?[^/]+\.(?:dist-info/METADATA|egg-info/PKG-INFO)").fullmatch
_DPKG = re.compile(r"var/lib/dpkg/status(\.d/[^/]+)?").fullmatch
_VENV = re.compile(r"(?:.*/)?pyvenv\.cfg").fullmatch
_RELEASE = ("etc/os-release", "usr/lib/os-release")
_OWN = re.compile(r"(?:.*/)?tabserve/__init__\.py").fullmatch

Component = dict[str, Any]


def document(image: Path, name: str, version: str, epoch: int) -> dict[str, Any]:
    """The bill of materials (CycloneDX 1.6, JSON) of an image's root folder or archive; the same for the same image.

    epoch: its time, in seconds since 1970.
    """
    held = images.files(image, _wanted)
    components = sorted(_components(held), key=lambda each: str(each["bom-ref"]))
    seal = hashlib.sha256(repr((name, version, components)).encode()).hexdigest()
    own = {"type": "container", "bom-ref": f"{name}@{version}", "name": name, "version": version}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, seal)}",
        "version": 1,
        "metadata": {"timestamp": datetime.fromtimestamp(epoch, UTC).isoformat(), "component": own},
        "components": components,
    }


def _wanted(path: str) -> bool:
    return bool(_METADATA(path) or _DPKG(path) or _VENV(path) or _OWN(path)) or path in _RELEASE


def _components(held: dict[str, bytes]) -> list[Component]:
    distro = _distro(held)
    found: dict[str, Component] = {}
    for path, content in held.items():
        text = content.decode(errors="replace")
        if _METADATA(path):
            made: list[Component | None] = [_distribution(text)]
        elif _DPKG(path):
            made = [_package(each, distro) for each in text.split("\n\n") if each.strip()]
        elif _VENV(path):
            made = [_python(text)]
        else:
            made = [_tabserve(text)] if _OWN(path) else []
        found |= {str(each["bom-ref"]): each for each in made if each is not None}
    return list(found.values())


def _distribution(text: str) -> Component:
    """A Python distribution, by its METADATA."""
    fields = HeaderParser().parsestr(text)
    name = re.sub(r"[-_.]+", "-", fields["Name"]).lower()
    return _component("library", name, fields["Version"], f"pkg:pypi/{name}@{quote(fields['Version'])}")


def _package(text: str, distro: str) -> Component | None:
    """A package of dpkg's list; None if it is not installed."""
    fields = HeaderParser().parsestr(text)
    if fields["Status"] not in ("install ok installed", None):
        return None
    name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
    qualifiers = f"arch={architecture}" + (f"&distro={distro}" if distro else "")
    return _component("library", name, version, f"pkg:deb/debian/{quote(name)}@{quote(version)}?{qualifiers}")


def _python(text: str) -> Component | None:
    """The Python of an environment."""
    found = re.search(r"^version(?:_info)? *= *(\d+\.\d+\.\d+)", text, re.MULTILINE)
    return found and _component("application", "python", found[1], f"pkg:generic/python@{found[1]}")


def _tabserve(text: str) -> Component | None:
    """tabserve itself, which images hold as files."""
    found = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    return found and _component("library", "tabserve", found[1], f"pkg:pypi/tabserve@{found[1]}")


def _component(kind: str, name: str, version: str, purl: str) -> Component:
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _distro(held: dict[str, bytes]) -> str:
    """Such as debian-12; empty if the image does not say."""
    text = next((held[name].decode() for name in _RELEASE if held.get(name)), "")
    fields = {key: value.strip('"') for key, _, value in (line.partition("=") for line in text.splitlines())}
    return f"{fields['ID']}-{fields['VERSION_ID']}" if "ID" in fields and "VERSION_ID" in fields else ""
