"""`python -m benchmarks.options`: what TLS and tracing cost a transformer and its predictor, into results/options.

Chains of the model payments answer in turns. One runs without the libraries of the extra `tracing`, in an environment
of its own; the others have them. Connections are kept, so handshakes are not measured. The receiver of spans has the
generator's core.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from benchmarks import cache, environments, models, roster, turns
from benchmarks.payloads import payloads
from benchmarks.roster import Peer
from benchmarks.servers import GENERATOR_CORE
from benchmarks.turns import Chains, Question
from tests.otlp import posted

RESULTS = Path(__file__).parent / "results" / "options"
LIBRARIES = ("tabserve", "opentelemetry-sdk", "cryptography", "numpy", "uvloop")
SAMPLE = 0.01
"""The share of traces that the chart records by default."""
SOURCES = os.pathsep.join(str(cache.ROOT / part) for part in ("", "predictor", "transformer"))
COST = dict.fromkeys(turns.FIGURES)
QUESTIONS = (
    Question("plain", "without", "tracing off", "not installed", COST | {turns.P50: 1.02}),
    Question("sampled", "plain", f"{SAMPLE:.0%} of the traces recorded", "off", COST),
    Question("traced", "plain", "all traces recorded", "off", COST),
    Question("tls", "plain", "TLS at the transformer", "none", COST),
    Question("mutual", "plain", "mutual TLS to the predictor as well", "none", COST),
)


@click.command(help=__doc__)
@turns.options(RESULTS, seconds=2.5)
def main(number: int, seconds: float, rows: int, output: Path) -> None:
    """Measure, write table.md and summary.json, and print the table."""
    environments.generator()
    environments.python(environments.WITHOUT_TRACING)
    asked = payloads(models.trained("payments"), rows, "records")
    with tempfile.TemporaryDirectory(prefix="tabserve-bench-") as folder, posted(_drop, _at_generator) as collector:
        peers = _peers(_certificate(Path(folder)), collector)
        taken = Chains(peers, asked, Path(folder), seconds).measure(number)
    found = [figure for question in QUESTIONS for figure in turns.compared(taken, question)]
    about = turns.about("benchmarks.options", number, seconds, rows, LIBRARIES)
    turns.write("What TLS and tracing cost", about, taken, found, output)


def _drop(_: bytes) -> None:
    """Take spans, and keep none."""


def _at_generator() -> None:
    os.sched_setaffinity(0, {GENERATOR_CORE})


def _peers(certificate: Path, collector: str) -> dict[str, Peer]:
    """The chains; `plain` comes first, and is what most are compared with."""
    traced = (f"--tracing_endpoint={collector}",)
    served = (f"--tls_cert={certificate}", f"--tls_key={certificate.with_suffix('.key')}")
    plain = replace(roster.DECISIONS, name="plain", variables={"PYTHONPATH": SOURCES})
    secured = replace(_with(plain, "tls", served), authority=str(certificate))
    found = (
        plain,
        replace(plain, name="without", environment=environments.WITHOUT_TRACING),
        _with(plain, "sampled", (*traced, f"--tracing_ratio={SAMPLE}"), traced),
        _with(plain, "traced", traced, traced),
        secured,
        _with(secured, "mutual", (f"--predictor_ca={certificate}",), (*served, f"--tls_client_ca={certificate}")),
    )
    return {each.name: each for each in found}


def _with(peer: Peer, name: str, transformer: Sequence[str], predictor: Sequence[str] = ()) -> Peer:
    """A chain with more options."""
    outer, inner = peer.commands
    return replace(peer, name=name, commands=((*outer, *transformer), (*inner, *predictor)))


def _certificate(folder: Path) -> Path:
    """A new certificate of 127.0.0.1 that is its own authority, for servers and clients; its key is beside it."""
    certificate = folder / "own.crt"
    made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    says = ("-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1")
    uses = ("-addext", "keyUsage=critical,digitalSignature,keyCertSign")
    files = ("-out", str(certificate), "-keyout", str(certificate.with_suffix(".key")))
    subprocess.run([*made, *says, *uses, *files], check=True, capture_output=True)
    return certificate


if __name__ == "__main__":
    main()
