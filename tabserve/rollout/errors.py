"""The error that says why a rollout cannot be judged."""

from __future__ import annotations


class RolloutError(ValueError):
    """Counts cannot be read, or do not go together.

    what: the source or option at fault. problem: what is wrong with it. remedy: what to do next, as a sentence.
    """

    def __init__(self, what: str, problem: str, remedy: str) -> None:
        super().__init__(f"{what}: {problem}. {remedy}")
