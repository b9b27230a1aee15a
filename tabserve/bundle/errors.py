"""The one error of a bundle that can't be used."""

from __future__ import annotations

from collections.abc import Sequence


class BundleError(ValueError):
    """A bundle, or what should become one, is refused: the file, what is wrong with it, and what to do.

    file: the file or argument at fault; remedy: the next step, as a sentence.
    """

    def __init__(self, file: str, problem: str, remedy: str) -> None:
        super().__init__(f"{file}: {problem}. {remedy}")
        self.file = file
        self.problem = problem
        self.remedy = remedy


class UntrustedError(BundleError):
    """A model holds types that nobody vouched for.

    types: their names. remedy: how to trust them where the error is shown; default: in Python.
    """

    def __init__(self, file: str, types: Sequence[str], remedy: str = "") -> None:
        in_python = f"If you know them, trust them by name: trusted={list(types)}. Else save a model without them."
        super().__init__(file, f"holds types that are not trusted: {', '.join(types)}", remedy or in_python)
        self.types = tuple(types)

    def on_command_line(self) -> UntrustedError:
        """The same for somebody who runs `tabserve`."""
        options = " ".join(f"--trusted {name}" for name in self.types)
        return UntrustedError(self.file, self.types, f"If you know them, trust them by name: {options}.")

    def in_service(self) -> UntrustedError:
        """The same for somebody who runs a service."""
        names = ",".join(self.types)
        remedy = (
            f"If you know them, trust them by name: --trusted {names}, the variable TABSERVE_TRUSTED={names}, "
            f"or in the chart `trusted: [{', '.join(self.types)}]`."
        )
        return UntrustedError(self.file, self.types, remedy)
