"""docs/operations.md lists every metric that the services show, with its type and labels."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.faults.conftest import Subject
from tests.serving import ROOT, Service, running

Shown = dict[str, tuple[str, set[str]]]


def documented() -> Shown:
    """Type and labels of each metric in the table of the services."""
    page = (ROOT / "docs" / "operations.md").read_text()
    table = page.partition("\n## Metrics\n")[2].partition("\n#")[0]
    rows = re.findall(r"^\| (`[a-z_`, ]+) \| (counter|gauge|histogram) \| (.*?) \|", table, re.MULTILINE)
    words = re.compile(r"`(\w+)`").findall
    return {name: (kind, {*words(labels)}) for names, kind, labels in rows for name in words(names)}


def shown(service: Service) -> Shown:
    """Type and labels of each metric on a page."""
    found: Shown = {}
    for family in text_string_to_metric_families(service.metrics()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = (family.type, {label for sample in family.samples for label in sample.labels} - {"le"})
    return found


def test_every_metric_is_documented_with_its_type_and_labels(
    quick_bundle: Path, quick_predictor: Service, tmp_path: Path
) -> None:
    options = (f"--model_dir={quick_bundle}", f"--predictor_host=127.0.0.1:{quick_predictor.http_port}")
    asked = (f"--decision_log={tmp_path / 'decisions'}", "--feature_bins=true")
    with running("tabserve_transformer", *options, *asked, log=tmp_path / "log") as transformer:
        subject = Subject(transformer)
        assert subject.target.infer(subject.payload.json()).status == 200
        pages = [shown(transformer), shown(quick_predictor)]
    table, merged = documented(), {**pages[0], **pages[1]}

    assert {*merged} == {*table}
    assert {name: kind for name, (kind, _) in merged.items()} == {name: kind for name, (kind, _) in table.items()}
    assert [name for name, (_, labels) in merged.items() if not labels <= table[name][1]] == []
    for name in ("tabserve_requests_total", "tabserve_model_info", "tabserve_predictor_seconds"):
        assert merged[name][1] == table[name][1]
