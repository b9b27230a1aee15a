"""The bills of materials of the images that the cluster runs, compared with what dpkg and Python list."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import distributions as distributions_in
from pathlib import Path
from urllib.parse import quote

import pytest

from release import images, sbom
from tests.cluster.testbed.places import cache

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.usefixtures("cluster")]
IMAGES = cache() / "images"


def unpacked(image: Path, folder: Path) -> None:
    """Write the dpkg's list and the distributions' folders of an image, as another program reads them."""
    for name, content in images.files(image, lambda path: "var/lib/dpkg" in path or ".dist-info/" in path).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("service", ["predictor", "transformer"])
def test_a_bill_of_a_built_image_lists_what_dpkg_and_python_list(service: str, tmp_path: Path) -> None:
    archives = sorted(path for path in IMAGES.glob(f"tabserve-{service}-????????????.tar"))
    assert archives, f"no image in {IMAGES}: make cluster-up images"
    bill = sbom.document(archives[-1], f"tabserve-{service}", "0", 0)
    purls = {each["purl"].partition("?")[0] for each in bill["components"]}
    unpacked(archives[-1], tmp_path)
    admin = f"--admindir={tmp_path}/var/lib/dpkg"
    form = "${db:Status-Status} ${Package} ${Version}\n"
    listed = subprocess.run(["dpkg-query", admin, "-W", "-f", form], check=True, capture_output=True, text=True).stdout
    packages = {
        f"pkg:deb/debian/{quote(name)}@{quote(version)}"
        for status, name, version in (line.split(" ") for line in listed.splitlines())
        if status == "installed"
    }
    folders = [str(path) for path in tmp_path.rglob("site-packages")] + [
        str(path) for path in tmp_path.rglob("dist-packages")
    ]
    distributions = {
        f"pkg:pypi/{re.sub('[-_.]+', '-', each.name).lower()}@{each.version}" for each in distributions_in(path=folders)
    }
    others = {purl for purl in purls if purl.startswith(("pkg:generic/python@", "pkg:pypi/tabserve@"))}

    assert len(packages) > 50
    assert len(distributions) > 10
    assert len(others) == 2
    assert purls == packages | distributions | others
