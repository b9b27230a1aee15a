"""Make one measurement, with the generator on its core and a running server."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import environments, pool
from benchmarks.payloads import Payloads, verify
from benchmarks.roster import Peer
from benchmarks.servers import GENERATOR_CORE, SERVER_CORE, PeerError, Server

BUSY = 0.9
"""The share of use from which a core counts as saturated."""
DISTURBED = 0.05
"""The share of a core which, if other processes use more, makes a measurement disturbed."""
MOST_TRIES = 3
"""How often, at most, a disturbed closed loop is measured; the least disturbed measurement counts."""
GRACE_SECONDS = 300.0
"""Additional seconds for sending every request once, and for connecting."""


class Usage(msgspec.Struct, frozen=True):
    """CPU seconds within the measured time."""

    generator: float
    server: float
    cores: list[float]


class Measurement(msgspec.Struct, frozen=True):
    """What the generator saw. Times are in seconds; quantiles are in steps of 1/200, then 0.999."""

    seconds: float
    right: int
    wrong: int
    refused: int
    failed: int
    unsent: int
    error: str
    quantiles: list[float]
    refused_quantiles: list[float]
    usage: Usage

    @property
    def per_second(self) -> float:
        """Right answers per second."""
        return self.right / self.seconds

    @property
    def p50(self) -> float:
        """Median seconds to a right answer."""
        return self.quantiles[100]

    @property
    def p99(self) -> float:
        """99th percentile of seconds to a right answer."""
        return self.quantiles[198]

    @property
    def server_seconds(self) -> float:
        """CPU seconds of the server per right answer."""
        return self.usage.server / self.right

    @property
    def foreign(self) -> float:
        """The largest share of a core that other processes used."""
        own = {SERVER_CORE: self.usage.server, GENERATOR_CORE: self.usage.generator}
        return max(max(0.0, self.usage.cores[core] - seconds) / self.seconds for core, seconds in own.items())

    @property
    def disturbed(self) -> bool:
        """Whether other processes used more than DISTURBED."""
        return self.foreign > DISTURBED


def apart(measured: Measurement, other: Measurement) -> Measurement:
    """A measurement without the CPU time that another one used at the same time."""
    server, generator = measured.usage.cores[SERVER_CORE], measured.usage.cores[GENERATOR_CORE]
    cores = {SERVER_CORE: server - other.usage.server, GENERATOR_CORE: generator - other.usage.generator}
    usage = msgspec.structs.replace(measured.usage, cores=[cores[core] for core in sorted(cores)])
    return msgspec.structs.replace(measured, usage=usage)


@dataclass(frozen=True)
class Load:
    """How much to send, and how: a closed loop, or an open loop at `rate` requests per second."""

    connections: int
    seconds: float
    rate: float = 0.0
    warm_up: float = 1.0


def collect(server: Server, peer: Peer, asked: Payloads, answers: Path) -> float:
    """Send every request once, compare every answer with the library's prediction, and keep their bytes in `answers`.

    Returns the largest difference. Raises PeerError.
    """
    _generate(server, asked, "-collect", str(answers))
    try:
        return verify(asked, pool.read(answers), peer.answers)
    except (ValueError, KeyError, IndexError) as error:
        raise PeerError(str(error)) from error


def measure(server: Server, asked: Payloads, answers: Path, load: Load) -> Measurement:
    """Send the load; every answer is compared with its bytes in `answers`.

    Raises PeerError if one is wrong or failed, or if the generator was the bottleneck.
    """
    output = _generate(
        server, asked, "-answers", str(answers), "-connections", str(load.connections), "-rate", str(load.rate),
        "-warm-up", f"{load.warm_up}s", "-duration", f"{load.seconds}s", "-watch", ",".join(map(str, server.ids())),
        seconds=load.seconds + load.warm_up,
    )  # fmt: skip
    measured = msgspec.json.decode(output, type=Measurement)
    if measured.wrong or measured.failed or not measured.right:
        raise PeerError(
            f"{measured.right} right, {measured.wrong} wrong and {measured.failed} failed answers: {measured.error}"
        )
    refuse_saturated(measured)
    return measured


def refuse_saturated(measured: Measurement) -> None:
    """Raise PeerError if the generator's core was full while the server's was not."""
    used = measured.usage
    if used.generator > BUSY * measured.seconds and used.server < BUSY * measured.seconds:
        raise PeerError(
            f"the generator was the bottleneck: it used {used.generator / measured.seconds:.0%} of its core, "
            f"the server {used.server / measured.seconds:.0%}"
        )


def _generate(server: Server, asked: Payloads, *options: str, seconds: float = 0.0) -> bytes:
    headers = "\n".join(f"{name}: {value}" for name, value in asked.headers.items())
    common: list[Any] = ["-protocol", asked.protocol, "-target", server.target(asked), "-path", asked.path,
                         "-header", headers, "-requests", str(asked.file), "-authority", server.authority]  # fmt: skip
    command = ["taskset", "-c", str(GENERATOR_CORE), str(environments.generator()), *common, *options]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=seconds + GRACE_SECONDS,
            check=False,
            env={**os.environ, "GOGC": "400"},
        )
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"the generator did not end within {error.timeout:g} s") from error
    if done.returncode:
        raise PeerError(done.stderr.decode(errors="replace").strip()[-600:])
    return done.stdout
