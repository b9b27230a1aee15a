"""`tabserve doctor RELEASE` names the cause of each release that is broken on purpose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from sklearn.linear_model import LogisticRegression

from tabserve.doctor.api import Absent, Forbidden
from tabserve.doctor.command import lines
from tabserve.doctor.diagnosis import Diagnosis, diagnose
from tabserve.doctor.reading import look
from tests.cluster import breakages
from tests.cluster.breakages import CRAMPED, NAMESPACE, Breakage
from tests.cluster.chart import Release, connect, kubeconfig
from tests.cluster.testbed import api, build
from tests.cluster.testbed.places import PROJECT
from tests.docs.blocks import files
from tests.unit.bundles import saved

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.usefixtures("cluster")]
SECONDS = 240
CAUSES = (
    *("wrong-digest", "bundle-not-found", "store-credentials", "service-account", "image", "quota", "pod-security"),
    *("no-gateway", "gateway-class", "unsigned", "wrong-signature", "missing-object", "not-proven", "missing-library"),
    *("out-of-memory", "no-room", "no-node", "claim-missing", "claim-pending", "rollout-back"),
    "predictor-unreachable",
)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Generator[dict[str, tuple[str, Breakage]]]:
    """The broken releases by what breaks them: the release's name, and how it was made."""
    folder = tmp_path_factory.mktemp("broken")
    bundle = saved(LogisticRegression(), folder).path
    try:
        made = breakages.breakages(bundle, folder)
        for name, breakage in made.items():
            Release(name, build.HELM3.folder / "helm", breakage.namespace).apply(breakages.given(breakage))
            if breakage.after is not None:
                breakage.after(name)
        yield {breakage.cause: (name, breakage) for name, breakage in made.items()}
    finally:
        for namespace in (NAMESPACE, CRAMPED):
            connect().delete("v1", "Namespace", namespace)
        breakages.remove_bundles()
        api.wait("no namespaces", lambda: ", ".join(filter(there, (NAMESPACE, CRAMPED))), 180, lambda: "")


def there(namespace: str) -> bool:
    return connect().exists("v1", "Namespace", namespace)


def read(path: str) -> str:
    """The answer to a GET, with the rights of the kubeconfig."""
    try:
        return connect().request("GET", path)
    except api.ApiError as error:
        raise (Forbidden if error.status in (401, 403) else Absent)(path) from error


def asked(name: str, namespace: str) -> Diagnosis:
    return diagnose(look(read, namespace, name, datetime.now(UTC)))


def test_each_breakage_is_asked_about(broken: dict[str, tuple[str, Breakage]]) -> None:
    assert {*broken} == {*CAUSES}


@pytest.mark.parametrize("cause", CAUSES)
def test_the_doctor_names_the_cause(broken: dict[str, tuple[str, Breakage]], cause: str) -> None:
    name, breakage = broken[cause]

    def lacking() -> str:
        found = [one.cause for one in asked(name, breakage.namespace).findings]
        return "" if found == [cause] else f"expected {cause}, got {', '.join(found) or 'none'}"

    api.wait(f"the cause of {name}", lacking, SECONDS, lambda: connect().explain(breakage.namespace))
    told = asked(name, breakage.namespace)
    print("", *lines(told), sep="\n")

    assert [one.cause for one in told.findings] == [cause]
    assert told.unexplained == []


def test_the_command_says_it_too(broken: dict[str, tuple[str, Breakage]]) -> None:
    name, _ = broken["wrong-digest"]
    done = told(name)

    assert (done.returncode, done.stderr) == (1, "")
    assert f"wrong digest: {name}-a-predictor\n  found   bundle.json: expected digest sha256:000" in done.stdout


def test_a_release_that_is_not_there_is_told(broken: dict[str, tuple[str, Breakage]]) -> None:
    done = told("nobodys")

    assert done.returncode == 1
    assert "no such release: namespace broken" in done.stdout


def test_the_rights_of_the_page_suffice(broken: dict[str, tuple[str, Breakage]], tmp_path: Path) -> None:
    """With those of docs/kubernetes.md and no more, everything is read."""
    page = files((PROJECT / "docs" / "kubernetes.md").read_text())["doctor.yaml"].replace("factory", NAMESPACE)
    rights = list(yaml.safe_load_all(page))
    connect().apply(*rights)
    try:
        (tmp_path / "config").write_text(yaml.safe_dump(as_account("doctor")))
        done = told("halted", tmp_path / "config")
    finally:
        for item in rights:
            connect().delete(item["apiVersion"], item["kind"], item["metadata"]["name"], NAMESPACE)

    assert "Not allowed" not in done.stdout
    assert (done.returncode, done.stderr) == (1, "")
    assert "canary taken back: ConfigMap halted-rollout" in done.stdout


def as_account(name: str) -> dict[str, Any]:
    """The kubeconfig, with the token of a ServiceAccount in place of the user's rights."""
    config: dict[str, Any] = yaml.safe_load(kubeconfig().read_text())
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{name}/token"
    asking = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    token = json.loads(connect().request("POST", path, asking))["status"]["token"]
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    return config


def told(name: str, config: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What `tabserve doctor` says of a release."""
    command: list[str | Path] = [Path(sys.executable).parent / "tabserve", "doctor", name, "-n", NAMESPACE]
    used = {**os.environ, "KUBECONFIG": str(config or kubeconfig())}
    return subprocess.run(command, capture_output=True, text=True, env=used, timeout=120)
