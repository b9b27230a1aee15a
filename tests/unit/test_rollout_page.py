"""A rollout's page, from the states that a gate really goes through."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import msgspec
import pytest
from click.testing import CliRunner, Result

from tabserve.cli import main
from tabserve.rollout.kube import STATE
from tabserve.rollout.page import page
from tabserve.rollout.simulate import GOOD
from tabserve.rollout.state import Pod, State, parse
from tests.serving import ROOT
from tests.unit.rollout_course import course

HOSTILE = '</script><script src="//evil">&'


@pytest.fixture(scope="module")
def good() -> State:
    return course(ticks=80)


@pytest.fixture(scope="module")
def flipping() -> State:
    return course(flipped=0.08)


def text(state: State) -> str:
    """What a reader sees, without tags."""
    shown = re.sub(r"<style>.*?</style>|<script.*?</script>", " ", page(state), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", shown).replace("&#39;", "'").split())


def test_a_good_rollout_is_told_to_its_end(good: State) -> None:
    seen = text(good)

    assert (good.phase, [step.weight for step in good.counted]) == ("held", [5, 20, 50])
    assert "On at 50 % After" in seen
    assert "Held at 50 %. Set traffic.stable to b to promote it." in seen
    assert re.search(r"step 5 % gate \d+ pairs of answers agree enough", seen)
    assert re.search(r"held 50 % gate the budgets are proven", seen)
    assert len(re.findall(r"of 20 proven", seen)) == 3
    for digest in (good.stable.digest, good.canary.digest, good.canary.images["transformer"]):
        assert digest in seen


def test_one_that_fails_is_told_with_its_numbers() -> None:
    state = course(GOOD._replace(errors=0.05))
    seen = text(state)

    assert state.phase == "back"
    assert re.search(r"Taken back After [\d.]+ (s|min) and [\d,]+ requests, [\d,]+ of them at the canary", seen)
    assert re.search(r"Failed requests: \d+ of \d+ \(\d+\.\d+%\) at the canary, .* shows this once in \d+", seen)
    row = re.search(r"errors (\d+) of (\d+) \([\d.]+%\) (\d+) of (\d+) \([\d.]+%\) ([\d.]+) to ([\d,]+|[\d.]+) ", seen)
    assert row is not None
    ours, asked, theirs, others = (float(part) for part in row.groups()[:4])
    assert float(row[5]) < ours / asked * others / theirs < float(row[6].replace(",", ""))
    assert "latency: a pod of the canary gets fewer than half of the requests of one of stable's" in seen


def test_flips_have_their_table_and_never_met_a_client(flipping: State) -> None:
    seen = text(flipping)
    copies = flipping.copies or {}

    assert (flipping.phase, flipping.counted) == ("back", [])
    assert re.search(r"Both decide [\d.]+ % of \d+ requests alike \(95 %: [\d.]+ to [\d.]+ %\)", seen)
    cell = copies["flips"]["accept"]["review"]
    assert f"accept review {cell['requests']} {cell['rows']} {' '.join(cell['ids'])}" in seen
    assert "what compares answers to clients: the canary has given none yet." in seen
    assert "back at 100" in seen


def test_a_schema_that_refuses_more_is_told_with_the_requests() -> None:
    state = course(refusing=0.04)
    seen = text(state)

    assert state.phase == "back"
    assert "Refused requests by one slot alone" in seen
    refused = (state.copies or {})["refused_ids"]
    assert f"Accepted by stable, refused by the canary {len(refused)} requests: {' '.join(refused)}" in seen


@pytest.mark.parametrize(("ticks", "said"), [(1, "Watching stable"), (17, "Shadowing"), (40, "Under way at")])
def test_a_rollout_under_way_has_a_page_at_any_time(ticks: int, said: str) -> None:
    seen = text(course(rpm=300 if ticks > 20 else 3000, ticks=ticks, mirror=10 if ticks < 20 else 0))

    assert said in seen
    assert "Releases and pods" in seen


def test_the_page_needs_nothing_else_and_holds_its_data(flipping: State) -> None:
    made = page(flipping)
    (kind, data) = re.findall(r"<script([^>]*)>(.*?)</script>", made, re.DOTALL)[0]

    assert 'type="application/json"' in kind
    assert made.count("<script") == 1
    assert "http" not in made.replace("http-equiv", "")
    assert parse(data, "page") == flipping


def test_nothing_in_a_state_is_taken_for_html(flipping: State) -> None:
    hostile = parse(flipping.text(), "copy")
    hostile.name = hostile.told = hostile.canary.release = hostile.changes[-1].why = HOSTILE
    hostile.not_judged, hostile.pods = [HOSTILE], [Pod(HOSTILE, HOSTILE, 2)]
    copies = hostile.copies or {}
    copies["flips"] = {HOSTILE: {HOSTILE: {"requests": 1, "rows": 1, "ids": [HOSTILE]}}}
    copies["refused_ids"] = [HOSTILE]
    made = page(hostile)

    assert made.count("<script") == made.count("</script>") == 1
    assert "//evil" in made
    assert "2 restarts" in text(hostile)


def test_the_page_of_a_rollout_that_nothing_is_known_of_is_a_page() -> None:
    empty = msgspec.structs.replace(course(ticks=1), changes=[], pods=[], phase="wait", told="")

    assert "Nothing has changed yet." in text(empty)


def report(*options: str, given: str | None = None) -> Result:
    return CliRunner().invoke(main, ["rollout", "report", *options], input=given)


def test_the_command_takes_the_state_or_its_config_map(flipping: State, tmp_path: Path) -> None:
    whole = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "data": {STATE: flipping.text()}})
    (tmp_path / "state.json").write_text(flipping.text())
    same = parse(flipping.text(), "copy")
    outs = [tmp_path / name for name in ("a.html", "b.html")]
    one = report("--file", str(tmp_path / "state.json"), "-o", str(outs[0]))
    other = report("--file", "-", "-o", str(outs[1]), given=whole)

    assert (one.exit_code, other.exit_code) == (0, 0), one.output + other.output
    assert one.stdout == f"{outs[0]}: {flipping.told}\n"
    assert outs[0].read_text() == outs[1].read_text() == page(same)


@pytest.fixture
def cluster(flipping: State, tmp_path: Path) -> Generator[dict[str, str]]:
    """The environment in which kubectl would reach an API server, which has the ConfigMap of one rollout."""

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/api/v1/namespaces/models/configmaps/fraud-rollout"
            kept = {"metadata": {}, "data": {STATE: flipping.text()}}
            body = json.dumps(kept if found else {"message": "not found"}).encode()
            self.send_response(200 if found else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        Thread(target=server.serve_forever, args=(0.01,)).start()
        named = {"name": "test", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        context = {"name": "test", "context": {"cluster": "test", "user": "test"}}
        config = {"clusters": [named], "contexts": [context], "users": [{"name": "test", "user": {}}]}
        (tmp_path / "config").write_text(json.dumps(config | {"current-context": "test"}))
        try:
            yield os.environ | {"KUBECONFIG": str(tmp_path / "config"), "PYTHONPATH": str(ROOT)}
        finally:
            server.shutdown()


def test_the_command_asks_the_cluster_for_a_release(flipping: State, cluster: dict[str, str], tmp_path: Path) -> None:
    asked = [sys.executable, "-m", "tabserve.cli", "rollout", "report", "fraud", "-n", "models"]
    found = subprocess.run(asked, env=cluster, cwd=tmp_path, capture_output=True, text=True)

    assert (found.returncode, found.stdout) == (0, f"rollout.html: {flipping.told}\n"), found.stderr
    assert "Both decide" in (tmp_path / "rollout.html").read_text()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read"),
        ("{", "is no state of a rollout"),
        ('{"kind": "ConfigMap", "data": {}}', "is no state of a rollout"),
        ('{"format": 99}', "expected a rollout's state of format 1, got 99"),
    ],
)
def test_what_is_no_state_is_refused(tmp_path: Path, content: str | None, told: str) -> None:
    path = tmp_path / "state.json"
    if content is not None:
        path.write_text(content)
    done = report("--file", str(path), "-o", str(tmp_path / "out.html"))

    assert (done.exit_code, done.stderr.startswith(f"Error: {path}: ")) == (3, True), done.output
    assert told in done.stderr
    assert not (tmp_path / "out.html").exists()


def test_a_page_that_cannot_be_written_and_no_rollout_at_all_are_refused(flipping: State, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(flipping.text())
    nowhere = report("--file", str(tmp_path / "state.json"), "-o", str(tmp_path / "no" / "out.html"))

    assert (nowhere.exit_code, "Name another file with -o." in nowhere.stderr) == (3, True)
    assert "Give either a RELEASE or --file." in report().stderr
