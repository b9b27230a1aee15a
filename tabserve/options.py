"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
"""Types of arguments: a folder and a file that are there."""
ALLOW_JOBLIB = click.option("--allow-joblib", is_flag=True, help="Load joblib files, which can run any code.")
THREADS = click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="Of the model's library."
)
TRUSTED = click.option(
    "--trusted", multiple=True, metavar="NAME", help="Also load this type from a skops file; may be repeated."
)

VERIFY = click.option(
    "--verify",
    "signed_by",
    type=click.Path(exists=True, dir_okay=False),
    metavar="PEM",
    help="Refuse a bundle unless one of these public keys or authorities signed it.",
)


def trusted_names(trusted: Sequence[str]) -> list[str]:
    """Types split at commas, which the option may have because the services' setting does."""
    return [name for given in trusted for name in given.split(",") if name]
