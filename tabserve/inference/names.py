"""The names a model may have, the same in a bundle, in a service's settings, and in the chart's `modelName`.

Such a name needs no escapes in a URL, a header, a Kubernetes label or a shell.
"""

from __future__ import annotations

import re

from tabserve.inference.errors import quoted

PATTERN = "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
LONGEST = 60

_fits = re.compile(PATTERN).fullmatch


def misfit(name: str) -> str | None:
    """What is wrong with a model's name, None if it is valid."""
    if _fits(name) and len(name) <= LONGEST:
        return None
    characters = "letters, digits, `-`, `_` and `.`, a letter or digit first and last"
    return f"expected 1 to {LONGEST} characters ({characters}), got {quoted(name)}"
