"""`manifests/` is what the chart renders, and its overlays are small."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from charts import manifests
from tests.chart.helm import program

OVERLAYS = sorted((manifests.FOLDER / "overlays").glob("*/kustomization.yaml"))


def test_they_are_rendered_from_the_chart() -> None:
    contents = manifests.contents(str(program()))

    assert [*contents] == ["base/tabserve.yaml", "canary/tabserve.yaml", "runtime/clusterservingruntime.yaml"]
    for path, objects in contents.items():
        assert (manifests.FOLDER / path).read_text() == manifests.text(objects), f"{path}: run `make manifests`"


@pytest.mark.parametrize("overlay", OVERLAYS, ids=[path.parent.name for path in OVERLAYS])
def test_overlays_are_small_patches(overlay: Path) -> None:
    content = yaml.safe_load(overlay.read_text())

    assert {path.parent.name for path in OVERLAYS} == {"canary", "dev", "production"}
    assert all(len(patch["patch"].splitlines()) <= 20 for patch in content["patches"])
    assert "../../base" in content["resources"]
