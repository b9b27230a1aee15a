"""The command `tabserve stream`."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tabserve.options import ALLOW_JOBLIB, DIRECTORY, FILE, THREADS, TRUSTED, VERIFY, trusted_names


@click.command()
@click.argument("directory", metavar="BUNDLE", type=DIRECTORY)
@click.option(
    "--config",
    required=True,
    type=FILE,
    help="Topics, delivery and Kafka's keys: a YAML file.",
)
@click.option("--name", help="Of this member of the group; with exactly-once an earlier one is fenced.  [host name]")
@click.option("--release", default="", help="The release's id, in every message; default: the bundle's digest.")
@click.option("--digest", help="Refuse any bundle but this one, sha256:….")
@click.option("--host", default="0.0.0.0", show_default=True, help="The address of the admin port.")
@click.option("--admin-port", type=click.IntRange(0, 65535), default=8082, show_default=True, help="0 for none.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@THREADS
@VERIFY
@ALLOW_JOBLIB
@TRUSTED
def stream(
    directory: Path, name: str | None, release: str, host: str, admin_port: int, trusted: Sequence[str], **options: Any
) -> None:
    """Decide the records of a Kafka topic, until SIGTERM or Ctrl-C.

    Health and metrics are at the admin port. Exit status: 1 if it cannot start, or cannot go on, as when another member
    has the same name. Then start it again.
    """
    from tabserve.stream import command
    from tabserve.stream.run import Options

    member = Options(name or socket.gethostname(), release, host, admin_port)
    command.stream(directory, options=member, trusted=trusted_names(trusted), **options)
