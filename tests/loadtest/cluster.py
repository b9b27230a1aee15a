"""`make cluster-load`: the chart under load in the test cluster, through its gateways, with one report per deployment.

Each pod gets a fifth of a core, so that the pods are measured and not the machine's two cores. Capacities are compared
as ratios. On another cluster, set TABSERVE_KUBECONFIG, and put the gateways on the ports of tests/cluster.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tabserve_loadtest.document import Document, decode
from tabserve_loadtest.verdict import milliseconds
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, Release, Values, merged, released
from tests.cluster.testbed import build
from tests.cluster.testbed.places import KNATIVE_PORT, PROJECT, STANDARD_PORT

NAME, MODEL = "load", "breast-cancer"
CPU = "200m"
WATCH = f"{NAMESPACE}/app.kubernetes.io/instance={NAME}"
STANDARD = (f"--url=http://127.0.0.1:{STANDARD_PORT}", f"--host={NAME}-{NAMESPACE}.example.com")
KNATIVE = (f"--url=http://127.0.0.1:{KNATIVE_PORT}", f"--host={NAME}-predictor.{NAMESPACE}.example.com")
HPA = {
    "enabled": True,
    "minReplicas": 1,
    "maxReplicas": 3,
    "behavior": {"scaleDown": {"stabilizationWindowSeconds": 15}},  # soon enough to be seen
}
OBJECTIVES = Path(__file__).with_name("cluster.yaml")


def main() -> int:
    """Deploy, measure, and print the table; the exit code is the worst one."""
    folder = Path(sys.argv[1])
    bundle = trained(folder)
    found: dict[str, Document] = {}
    with released(NAME) as release:
        found |= standard(release, bundle, folder)
    with released(NAME) as release:
        release.apply(values(bundle, mode="Knative", knative={"features": chart.FEATURES},
                             transformer={"placement": "collocated"}))  # fmt: skip
        chart.wait_ready(NAME)
        found["Knative"] = load("knative", folder, bundle, "server", *KNATIVE)
    print(table(found))
    return max(document.exit_code for document in found.values())


def standard(release: Release, bundle: Path, folder: Path) -> dict[str, Document]:
    """Standard mode: one pod, three pods, the autoscaler, a canary."""
    one = values(bundle)
    deploy(release, one)
    found = {
        "Standard": load("standard", folder, bundle, "server", *STANDARD),
        "one pod": load("one-pod", folder, bundle, "ramp", *STANDARD),
    }
    deploy(release, merged(one, both(replicas=3)))
    found["three pods"] = load("three-pods", folder, bundle, "ramp", *STANDARD)
    deploy(release, one)
    deploy(release, merged(one, both(autoscaling=HPA)))
    found["autoscaler"] = load("autoscale", folder, bundle, "autoscale", *STANDARD, f"--watch={WATCH}")
    found["canary"] = canary(release, one, bundle, folder)
    return found


def canary(release: Release, one: Values, bundle: Path, folder: Path) -> Document:
    """A fifth of the requests to slot b, whose bundle gives the same answers."""
    second = folder / "second"
    if not second.exists():
        chart.next_version(bundle, second)
    filled = merged(one, {"releases": {"b": chart.on_volume(second)}, "traffic": {"canary": "b"}})
    deploy(release, filled, "b")
    release.apply(merged(filled, {"traffic": {"canaryPercent": 20}}))
    return load("canary", folder, bundle, "canary", *STANDARD)


def values(bundle: Path, **changes: object) -> Values:
    """One pod of each service with a fifth of a core."""
    resources = {"requests": {"cpu": "100m"}, "limits": {"cpu": CPU}}
    given = chart.values(MODEL, releases={"a": chart.on_volume(bundle)})
    return merged(merged(given, both(resources=resources)), changes)


def both(**changes: object) -> Values:
    """The same changes for predictor and transformer."""
    return {"predictor": changes, "transformer": changes}


def deploy(release: Release, given: Values, *slots: str) -> None:
    """Apply the values, and wait until slot a and the given slots are Ready."""
    release.apply(given)
    chart.wait_ready(*(f"{NAME}-{slot}" for slot in ("a", *slots)))


def load(name: str, folder: Path, bundle: Path, *options: str) -> Document:
    """Run a load test; its report goes to a folder with this name."""
    report = folder / name
    command = [sys.executable, "-P", "-m", "tabserve_loadtest", "run", f"--bundle={bundle}", f"--report={report}"]
    path = f"{build.link_tools()}:{os.environ['PATH']}"  # with kubectl
    environment = {**os.environ, "PATH": path, "KUBECONFIG": str(chart.kubeconfig())}
    subprocess.run(
        [*command, f"--objectives={OBJECTIVES}", f"--title={name}", *options], cwd=PROJECT, env=environment, check=False
    )
    return decode((report / "report.json").read_bytes())


def trained(folder: Path) -> Path:
    """The bundle breast_cancer, trained into the folder unless it is there."""
    bundle = folder / "breast_cancer"
    if not (bundle / "bundle.json").exists():
        subprocess.run([sys.executable, PROJECT / "examples/breast_cancer/train.py", bundle], check=True)
    return bundle


def table(found: dict[str, Document]) -> str:
    """A row per deployment: verdict, latency and figures."""
    lines = ["| deployment | verdict | p50 | p99 | figures |", "|---|---|---|---|---|"]
    for name, document in found.items():
        (section,) = document.sections
        shown = [milliseconds(q.value) for q in section.quantiles if q.q in (0.5, 0.99)] or ["", ""]
        figures = [f"{key} {value:.4g}" for key, value in section.figures.items()]
        figures += [f"{one.name[-8:]} {one.share:.1%} p99 {milliseconds(one.quantiles[2].value)}"
                    for one in section.releases if len(section.releases) > 1]  # fmt: skip
        lines.append(f"| {name} | {section.verdict.value} | {' | '.join(shown)} | {', '.join(figures)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
