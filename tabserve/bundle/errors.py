"""The error that says why a bundle can't be used."""

from __future__ import annotations

from collections.abc import Sequence


class BundleError(ValueError):
    """A bundle, or what should become one, is refused.

    file: the file or argument at fault. problem: what is wrong with it. remedy: what to do next, as a sentence.
    """

    def __init__(self, file: str, problem: str, remedy: str) -> None:
        super().__init__(f"{file}: {problem}. {remedy}")
        self.file = file
        self.problem = problem
        self.remedy = remedy


class UntrustedError(BundleError):
    """A model holds types that nobody vouched for.

    types: their names. remedy: how to trust them, in the words of whoever sees the error; default: Python's.
    """

    def __init__(self, file: str, types: Sequence[str], remedy: str = "") -> None:
        in_python = f"If you know them, trust them by name: trusted={list(types)}. Otherwise save a model without them."
        super().__init__(file, f"holds types that are not trusted: {', '.join(types)}", remedy or in_python)
        self.types = tuple(types)

    def on_command_line(self) -> UntrustedError:
        """The same error, for somebody who runs `tabserve`."""
        options = " ".join(f"--trusted {name}" for name in self.types)
        return UntrustedError(self.file, self.types, f"If you know them, trust them by name: {options}.")

    def in_service(self) -> UntrustedError:
        """The same error, for somebody who runs a service."""
        names = ",".join(self.types)
        remedy = (
            f"If you know them, trust them by name: --trusted {names}, the variable TABSERVE_TRUSTED={names}, "
            f"or `trusted: [{', '.join(self.types)}]` in the chart."
        )
        return UntrustedError(self.file, self.types, remedy)
