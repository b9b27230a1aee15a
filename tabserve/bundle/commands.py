"""The command `tabserve bundle sign`."""

from __future__ import annotations

from pathlib import Path

import click

from tabserve.bundle import signing
from tabserve.bundle.errors import BundleError
from tabserve.options import DIRECTORY, FILE


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--key", required=True, type=FILE, metavar="PEM", help="The private key: P-256, P-384 or P-521.")
@click.option(
    "--certificates", type=FILE, metavar="PEM", help="The key's certificate, then those that lead to its authority."
)
def sign(directory: Path, key: Path, certificates: Path | None) -> None:
    """Sign a bundle, in the form of OpenSSF model signing: write bundle.sig into it."""
    try:
        target = signing.sign(directory, key, certificates)
    except BundleError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"Wrote {target}.")
