"""What surrounds a gate: its settings, the Kubernetes API over TLS, its metrics, and the words about it."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import urlopen

import msgspec
import pytest
from click.testing import CliRunner

from tabserve.cli import main
from tabserve.kubeconfig import Away
from tabserve.rollout.errors import RolloutError
from tabserve.rollout.gated import describe
from tabserve.rollout.kube import ROUTES, Api, Refused, with_token
from tabserve.rollout.serving import SILENT_SECONDS, Page, serving
from tabserve.rollout.settings import parse
from tests.certificates import Authority
from tests.serving import free_port
from tests.unit.gates import SETTINGS, answered, at_step, drive

BUILT = {**msgspec.to_builtins(SETTINGS)}


def changed(**course: Any) -> str:
    return json.dumps(BUILT | {"course": BUILT["course"] | course})


def test_settings_are_what_was_written() -> None:
    assert parse(json.dumps(BUILT), "fraud-rollout-1") == SETTINGS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (changed(steps=[20, 5]), "rollout.steps: expected percentages that rise, got 20, 5"),
        (changed(steps=[0]), "Expected `int` >= 1 - at `$.course.steps[0]`"),
        (changed(budget={"errors": 2}), "Expected `float` < 1.0 - at `$.course.budget.errors`"),
        (changed(budget={"slow": {"over": 0.3}}), "rollout.budget.slow.over: expected one of 0.005, 0.01, "),
        (changed(change={"scores": 0.5}), "Expected `float` >= 1.0 - at `$.course.change.scores`"),
        (changed(prometheus="prometheus"), "at `$.course.prometheus`"),
        (changed(calibrate="half an hour"), "at `$.course.calibrate`"),
        (changed(stepps=[5]), "Object contains unknown field `stepps`"),
        ("{", "Input data was truncated"),
    ],
)
def test_settings_that_are_none_are_refused_by_name(text: str, told: str) -> None:
    with pytest.raises(RolloutError) as caught:
        parse(text, "job")

    assert told in str(caught.value)


def test_a_gate_outside_of_its_job_says_what_is_missing() -> None:
    done = CliRunner().invoke(main, ["rollout", "run"], env={"TABSERVE_ROLLOUT": ""})

    assert (done.exit_code, done.stderr) == (
        3, "Error: TABSERVE_ROLLOUT: is not set. Set rollout.enabled in the chart's values.\n",
    )  # fmt: skip


@pytest.mark.parametrize("command", ["status", "verdict"])
def test_what_is_judged_must_be_clear(command: str) -> None:
    both = CliRunner().invoke(main, ["rollout", command, "fraud", "--stable=a", "--canary=b"])
    neither = CliRunner().invoke(main, ["rollout", command])

    assert "RELEASE: give it alone, or --stable and --canary" in both.stderr
    assert "RELEASE: give it alone, or --stable and --canary" in neither.stderr
    assert both.exit_code == neither.exit_code == {"status": 1, "verdict": 3}[command]


class Server(NamedTuple):
    """An API server that notes what it is asked; the account that may ask it, and its variables."""

    asked: list[tuple[str, str, str, str]]
    account: Path
    environment: dict[str, str]


@pytest.fixture
def server(tmp_path: Path) -> Generator[Server]:
    asked: list[tuple[str, str, str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kind, token = self.headers["Content-Type"], self.headers["Authorization"]
            asked.append((self.command, self.path, kind, token))
            status = {"/none": 404, "/secret": 403}.get(self.path[self.path.rindex("/") :], 200)
            body = json.dumps({"message": "so it is", "items": [{"metadata": {"name": "x"}}]}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    pair = Authority(tmp_path, "ca").issue("kubernetes")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.cert, pair.key)
    (tmp_path / "token").write_text("secret-token\n")
    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.socket = tls.wrap_socket(served.socket, server_side=True)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    port = str(served.server_address[1])
    yield Server(asked, tmp_path, {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": port})
    served.shutdown()
    served.server_close()
    thread.join()


def test_the_api_is_asked_over_tls_with_the_pods_token(server: Server) -> None:
    api = Api(with_token(server.account, server.environment), "models")
    assert api.find(("v1", "pods"), "a in (b,c)") == [{"metadata": {"name": "x"}}]
    assert api.get(ROUTES, "none") is None
    assert api.patch(ROUTES, "x", {"metadata": {}})
    assert not api.delete(ROUTES, "none")
    with pytest.raises(Refused, match=r"403: so it is"):
        api.get(("v1", "configmaps"), "secret")

    routes = "/apis/gateway.networking.k8s.io/v1/namespaces/models/httproutes"
    assert [asked[:3] for asked in server.asked] == [
        ("GET", "/api/v1/namespaces/models/pods?labelSelector=a+in+%28b%2Cc%29", "application/json"),
        ("GET", f"{routes}/none", "application/json"),
        ("PATCH", f"{routes}/x", "application/merge-patch+json"),
        ("DELETE", f"{routes}/none", "application/json"),
        ("GET", "/api/v1/namespaces/models/configmaps/secret", "application/json"),
    ]
    assert {token for *_, token in server.asked} == {"Bearer secret-token"}


def test_an_api_that_is_away_or_that_nobody_trusts_is_told_apart_from_one_that_refuses(
    server: Server, tmp_path: Path
) -> None:
    away = server.environment | {"KUBERNETES_SERVICE_PORT": str(free_port())}
    with pytest.raises(Away, match="no answer from https"):
        Api(with_token(server.account, away), "models").get(ROUTES, "x")
    other = tmp_path / "other"
    other.mkdir()
    Authority(other, "ca")
    (other / "token").write_text("secret-token")
    with pytest.raises(Away, match="certificate verify failed"):
        Api(with_token(other, server.environment), "models").get(ROUTES, "x")
    with pytest.raises(RolloutError, match="no token of a pod is there"):
        with_token(tmp_path / "none", server.environment)


def test_its_metrics_say_where_it_stands_and_it_is_alive_as_long_as_it_ticks() -> None:
    driven = at_step(1)
    drive(driven, 5, canary=answered(17, errors=1), stable=answered(67, errors=1))
    seconds = [0.0]
    port = free_port()
    with serving(Page(driven, lambda: seconds[0]), port):
        with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            lines = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#")
        with urlopen(f"http://127.0.0.1:{port}/v2/health/live") as answer:
            alive = answer.status
        seconds[0] += SILENT_SECONDS
        with pytest.raises(HTTPError, match="503"):
            urlopen(f"http://127.0.0.1:{port}/v2/health/live")

    assert alive == 200
    assert (lines["tabserve_rollout_weight"], lines["tabserve_rollout_threshold"]) == ("20.0", "100.0")
    assert lines['tabserve_rollout_verdict{outcome="step"}'] == "1.0"
    assert lines['tabserve_rollout_verdict{outcome="back"}'] == "0.0"
    assert float(lines['tabserve_rollout_evidence{check="errors"}']) > 1
    assert {name for name in lines if "_proof" in name} == {
        'tabserve_rollout_proof{budget="errors"}', 'tabserve_rollout_proof{budget="slow"}',
    }  # fmt: skip


def test_a_rollout_is_described_by_its_sentence_its_counts_and_what_was_not_judged() -> None:
    driven = at_step(0)
    drive(driven, 10)
    lines = describe(driven.state)

    assert lines[0] == driven.state.told
    assert lines[2].startswith(f"step: 5 % of fraud to slot b (release {'0b' * 8}), looked at ")
    assert any(line.startswith("errors") for line in lines[4].splitlines())
    assert any("colder" in line for line in lines)
