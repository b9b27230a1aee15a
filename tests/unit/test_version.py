"""The version stands in several files, and is the same in all."""

from __future__ import annotations

import re

import yaml

import tabserve
from tests.serving import ROOT


def test_the_chart_is_of_the_packages_version() -> None:
    chart = yaml.safe_load((ROOT / "charts/tabserve/Chart.yaml").read_text())

    assert chart["version"] == chart["appVersion"] == tabserve.__version__


def test_the_newest_entry_of_the_changelog_is_of_it_and_dated() -> None:
    entries = re.findall(r"^## (\S+)(.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    releases = [entry for entry in entries if entry[0] != "Unreleased"]

    assert releases[0][0] == tabserve.__version__
    assert re.fullmatch(r" \(20\d\d-\d\d-\d\d\)", releases[0][1])


def test_docs_and_manifests_name_images_of_it() -> None:
    files = [path for folder in ("docs", "manifests") for path in (ROOT / folder).rglob("*.*")]
    texts = [path.read_text() for path in files if path.suffix != ".png"]
    tags = {
        tag for text in texts for tag in re.findall(r"tabserve-(?:predictor|transformer|loadtest):([\d.]+\d)", text)
    }

    assert tags == {tabserve.__version__}


def test_the_load_tests_job_has_its_image() -> None:
    job = yaml.safe_load((ROOT / "manifests/loadtest/kustomization.yaml").read_text())

    assert [image["newTag"] for image in job["images"]] == [tabserve.__version__]
