"""The one error of a bundle that can't be used."""

from __future__ import annotations


class BundleError(ValueError):
    """A bundle, or what should become one, is refused: the file, what is wrong with it, and what to do.

    file: the file or argument at fault; remedy: the next step, as a sentence.
    """

    def __init__(self, file: str, problem: str, remedy: str) -> None:
        super().__init__(f"{file}: {problem}. {remedy}")
        self.file = file
        self.problem = problem
        self.remedy = remedy
