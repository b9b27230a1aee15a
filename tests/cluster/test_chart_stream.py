"""The stream in the cluster: it decides, scales by CPU, and changes its release, and every record is decided once."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tabserve import bundle as bundles
from tabserve.bundle import expected
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, connect, merged, released
from tests.cluster.testbed import api, catalog
from tests.cluster.testbed.images import Built
from tests.cluster.testbed.places import NODE_IP, PROJECT
from tests.data.kafka import Broker, broker

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.usefixtures("cluster")]
IMAGE = Built("tabserve-stream", PROJECT / "Dockerfile", context=PROJECT, target="stream", version="dev",
              copies=("requirements.lock", "pyproject.toml", "tabserve"))  # fmt: skip
MODEL = "breast-cancer"
NAME = "streamed-stream"
PODS = {"serving.kserve.io/inferenceservice": NAME}
PARTITIONS = 4
EACH, PAUSE_SECONDS = 400, 0.1
"""How many records are sent at a time, and how long is waited before the next."""
ROWS = 50
MOST_PODS = 3
SECONDS = 240.0
SMALL = {
    "requests": {"cpu": "50m", "memory": "200Mi", "ephemeral-storage": None},
    "limits": {"cpu": "1", "memory": "512Mi", "ephemeral-storage": None},
}


@pytest.fixture(scope="module")
def image() -> None:
    """The image of `tabserve stream` on the node; no other test needs it."""
    catalog.provide(IMAGE)


class Sending:
    """Records that are sent all the time, each with its number as key."""

    def __init__(self, kafka: Broker, values: list[bytes]) -> None:
        self._producer = Producer({"bootstrap.servers": kafka.address})
        self._values, self._stop = values, threading.Event()
        self.count = 0

    def run(self) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            for number in range(self.count, self.count + EACH):
                self._producer.produce("in", self._values[number % len(self._values)], str(number))
            self.count += EACH
            self._producer.poll(0)
        assert self._producer.flush(SECONDS) == 0

    @contextmanager
    def going_on(self) -> Generator[None]:
        """Send until the block is left."""
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


def values(kafka: Broker, bundle: Path, newer: Path, stable: str) -> chart.Values:
    """Both releases, the stream of one, and an autoscaler that does not wait long."""
    stream = {
        "enabled": True,
        "image": {"repository": "dev.local/tabserve-stream", "tag": "dev"},
        "config": {"bootstrap": kafka.address, "group": NAME, "in": "in", "out": "out", "dead": "dead", "batch": 100},
        "resources": SMALL,
        "autoscaling": {
            "maxReplicas": MOST_PODS,
            "targetCPUUtilization": 100,
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 15}},
        },
    }
    given = chart.values(MODEL, releases={"a": chart.on_volume(bundle), "b": chart.on_volume(newer)}, stream=stream)
    other = {"a": "b", "b": "a"}[stable]
    return merged(given, {"transformer": {"placement": "none"}, "traffic": {"stable": stable, "canary": other}})


def wait_rolled(release: str) -> None:
    """Wait until the stream's pods are all Ready, and of this release."""

    def lacking() -> str:
        deployment = connect().get("apps/v1", "Deployment", NAME, NAMESPACE)
        others = [pod for pod in chart.staying(**PODS) if pod["metadata"]["annotations"]["tabserve/release"] != release]
        return chart.incomplete(deployment) or ", ".join(pod["metadata"]["name"] for pod in others)

    api.wait("the stream", lacking, SECONDS, chart.explain)


def wait_decided(kafka: Broker, more: int) -> None:
    """Wait until so many more messages are in the topic of decisions."""
    wanted = sum(kafka.ends("out").values()) + more

    def lacking() -> str:
        found = sum(kafka.ends("out").values())
        return "" if found >= wanted else f"{found} of {wanted}"

    api.wait("decisions", lacking, SECONDS, chart.explain)


@pytest.mark.usefixtures("image")
def test_a_stream_scales_by_cpu_and_changes_its_release_and_decides_each_record_once(
    bundle: Path, tmp_path: Path
) -> None:
    newer = chart.next_version(bundle, tmp_path / "breast_cancer")
    found = bundles.load(bundle)
    records = [json.dumps(expected.record(found, row)).encode() for row in range(ROWS)]
    decisions = [expected.decision(found, row)["decision"] for row in range(ROWS)]
    with broker(tmp_path / "kafka", NODE_IP) as kafka, released("streamed") as release:
        kafka.topics("in", "out", "dead", partitions=PARTITIONS)
        release.apply(values(kafka, bundle, newer, "a"))
        chart.wait_ready("streamed-a", "streamed-b")
        first, second = (chart.release_of(f"streamed-{slot}") for slot in "ab")
        wait_rolled(first)
        sending = Sending(kafka, records)
        with sending.going_on():
            wait_decided(kafka, 3_000)
            chart.wait_for_pods(MOST_PODS, PODS, SECONDS)
            wait_decided(kafka, 3_000)
            release.apply(values(kafka, bundle, newer, "b"))
            wait_rolled(second)
            wait_decided(kafka, 3_000)
        messages = kafka.read("out", sending.count)
        chart.wait_for_pods(1, PODS, SECONDS)
        dead = sum(kafka.ends("dead").values())

    keys = [int(each.key() or b"") for each in messages]
    made_by = Counter(dict(each.headers() or [])["tabserve_release"] for each in messages)
    lost, doubled = sending.count - len({*keys}), len(keys) - len({*keys})
    print(f"{sending.count} records, {lost} lost, {doubled} doubled, {dead} dead; by release: {dict(made_by)}")
    assert Counter(keys) == Counter(range(sending.count))
    assert {*made_by} == {first.encode(), second.encode()}
    assert [json.loads(each.value() or b"")["decision"] for each in messages] == [decisions[key % ROWS] for key in keys]
    assert dead == 0
    for partition in range(PARTITIONS):
        mine = [int(each.key() or b"") for each in messages if each.partition() == partition]
        assert mine == sorted(mine)
