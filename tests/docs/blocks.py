"""Code blocks of a Markdown page: files to write, and commands with what they print."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# file: (\S+)\n")


class Command(NamedTuple):
    """A `$ ` line of a console block, and the lines printed under it, where `…` stands for anything."""

    line: str
    expected: str

    def prints(self, output: str) -> bool:
        """Whether the output is the expected one."""
        pattern = ".*?".join(re.escape(part) for part in self.expected.split("…"))
        return re.fullmatch(pattern, output, re.DOTALL) is not None


def files(page: str) -> dict[str, str]:
    """Name and content of every block whose first line is `# file: NAME`."""
    found = ((_FILE.match(content), content) for _, content in _BLOCK.findall(page))
    return {match.group(1): content for match, content in found if match}


def consoles(page: str) -> list[list[Command]]:
    """The commands of every console block."""
    return [list(_commands(content)) for language, content in _BLOCK.findall(page) if language == "console"]


def _commands(content: str) -> Iterator[Command]:
    for part in content.removeprefix("$ ").split("\n$ "):
        line, _, expected = part.partition("\n")
        yield Command(line, expected.rstrip("\n"))
