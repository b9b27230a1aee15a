"""Restarts of the containers of both slots, counted from when a gate first saw each pod."""

from __future__ import annotations

from collections.abc import Sequence

from tabserve.rollout.state import Pod, State

MOST_RESTARTS = 2
"""So many restarts at the canary, with none at stable, take it back."""


class Restarts:
    """Counts restarts into the state of a rollout."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._first: dict[str, int] = {}

    def count(self, pods: Sequence[Pod]) -> None:
        """Keep how often each pod was restarted since it was first seen; a pod that is new has begun with none."""
        kept = {pod.name: pod.restarts for pod in self._state.pods}
        fresh = self._state.phase in ("wait", "watch") or not self._first
        for pod in pods:
            if pod.name not in self._first:
                self._first[pod.name] = pod.restarts - kept.get(pod.name, 0) if fresh else 0
        self._state.pods = [Pod(pod.slot, pod.name, pod.restarts - self._first[pod.name]) for pod in pods]

    @property
    def against(self) -> str:
        """Why they take the canary back, empty if they do not."""
        by_slot = {slot.slot: 0 for slot in (self._state.stable, self._state.canary)}
        for pod in self._state.pods:
            by_slot[pod.slot] += pod.restarts
        ours, theirs = by_slot[self._state.canary.slot], by_slot[self._state.stable.slot]
        if ours < MOST_RESTARTS or theirs:
            return ""
        return f"Back: the canary's containers were restarted {ours} times, and stable's never."
