"""Whole rollouts: the gate's state machine, driven by simulated clients and by copies that are really compared."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import orjson

from tabserve.rollout import answers
from tabserve.rollout.checks import TICK_SECONDS, above
from tabserve.rollout.compare import Answer, Copies
from tabserve.rollout.gate import Gate, begin
from tabserve.rollout.scrape import Tally
from tabserve.rollout.seen import Route, Seen
from tabserve.rollout.settings import Course, Gateway, Header, Settings, Shadow
from tabserve.rollout.simulate import GOOD
from tabserve.rollout.simulate import Slot as Behaviour
from tabserve.rollout.state import Pod, Slot, State

BEGAN = datetime(2026, 11, 30, 9, 0, tzinfo=UTC)
DECISIONS = ("accept", "review")


def settings(mirror: int = 10) -> Settings:
    """What the gate of a rollout 5 → 20 → 50 is told."""
    images = {"transformer": "registry.example/tabserve-transformer@sha256:" + "7" * 64}
    return Settings(
        name="fraud",
        namespace="models",
        stable=Slot("a", "fraud-a-4f2e91d0", "sha256:" + "1a" * 32, images),
        canary=Slot("b", "fraud-b-90c1aa37", "sha256:" + "2b" * 32, images),
        entry="transformer",
        workloads=["transformer", "predictor"],
        gateway=Gateway([], [], "10s"),
        header=Header("x-tabserve-canary", "true"),
        course=Course(steps=[5, 20, 50], shadow=Shadow(mirror, 20, 300), calibrate="2m"),
        job="fraud-rollout-1",
    )


def course(
    canary: Behaviour = GOOD,
    *,
    flipped: float = 0.002,
    refusing: float = 0.0,
    rpm: float = 3000,
    ticks: int = 400,
    mirror: int = 10,
    seed: int = 1,
) -> State:
    """The state after this many ticks, or at the end."""
    random = np.random.default_rng(seed)
    given = settings(mirror)
    gate = Gate(given, begin(given, BEGAN))
    copies = Copies()
    for _ in range(ticks):
        weight = gate.state.weight / 100
        if mirror and gate.wanted():
            _mirror(copies, random, int(min(random.poisson(rpm / 6 * mirror / 100), 200)), flipped, refusing)
        gate.tick(
            Seen(
                TICK_SECONDS,
                route=gate.wanted() or Route(0, 0),
                canary=_answered(random, canary, rpm / 6 * weight),
                stable=_answered(random, GOOD, rpm / 6 * (1 - weight)),
                pods=[Pod("a", "fraud-a-transformer-5c9f-x2k4", 0), Pod("b", "fraud-b-transformer-7d81-m9qz", 0)],
                by_pod={"one": (2, rpm / 12), "other": (1, rpm / 12)},
                copies=copies.copy(),
            )
        )
        if gate.ended() is not None:
            break
    gate.state.updated = (BEGAN + timedelta(seconds=gate.state.seconds)).isoformat(timespec="seconds")
    return gate.state


def _answered(random: np.random.Generator, slot: Behaviour, mean: float) -> Tally:
    requests = int(random.poisson(mean))
    errors, refused = int(random.binomial(requests, slot.errors)), int(random.binomial(requests, slot.refused))
    good = requests - errors - refused
    review = int(random.binomial(good, slot.first))
    return Tally(
        requests,
        errors,
        refused,
        requests,
        above(random.multinomial(requests, slot.latencies())).astype(float),
        {"accept": good - review, "review": review},
        random.multinomial(good, slot.scores()).astype(float),
    )


def _mirror(copies: Copies, random: np.random.Generator, count: int, flipped: float, refusing: float) -> None:
    for _ in range(count):
        copies.received += 1
        score = float(random.beta(1, 6))
        moved = min(max(score + random.normal(0, 0.004), 0.0), 1.0)
        before = DECISIONS[score > 0.3]
        after = DECISIONS[before == "accept"] if random.random() < flipped else before
        stable, canary = (
            answers.predictions(orjson.dumps({"predictions": [{"decision": decision, "score": each}]}))
            for decision, each in ((before, score), (after, moved))
        )
        status = 400 if random.random() < refusing else 200
        quick = random.lognormal(np.log(0.005), 0.6, 2)
        copies.add(Answer(200, quick[0], stable), Answer(status, quick[1], canary), f"r-{copies.received:05d}")
