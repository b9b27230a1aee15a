"""Stable alone, before the canary gets traffic: how much it is asked, and what its pods differ by."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tabserve.rollout.checks import TICK_SECONDS
from tabserve.rollout.dispersion import dispersion


class Watching:
    """Errors and requests of each of stable's pods, by tick."""

    def __init__(self) -> None:
        self._ticks: list[Mapping[str, tuple[float, float]]] = []

    def add(self, by_pod: Mapping[str, tuple[float, float]]) -> None:
        """Add a tick's errors and requests of each pod."""
        self._ticks.append(by_pod)

    @property
    def rate(self) -> str:
        """How much stable is asked, for people."""
        requests = sum(asked for tick in self._ticks for _, asked in tick.values())
        return f"{requests / (len(self._ticks) * TICK_SECONDS / 60):.0f} requests a minute"

    def differing(self) -> float | None:
        """What the pods differ by in their errors; None for one pod."""
        pods = sorted({name for tick in self._ticks for name in tick})
        if len(pods) < 2:
            return None
        counts = np.array([[tick.get(name, (0.0, 0.0)) for tick in self._ticks] for name in pods])
        return float(dispersion(counts[..., 0], counts[..., 1]))
