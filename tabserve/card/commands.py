"""The command `tabserve bundle card`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tabserve.bundle import BundleError
from tabserve.options import ALLOW_JOBLIB, DIRECTORY, FILE, TRUSTED, VERIFY, trusted_names

if TYPE_CHECKING:
    from tabserve.card.contents import Card

JSON, PAGE = "card.json", "card.html"


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.option(
    "--labels",
    metavar="FILE",
    type=FILE,
    help="Records that the model was not trained on, CSV or Parquet, with what each turned out to be.",
)
@click.option("--label", metavar="COLUMN", default="label", show_default=True, help="What a record turned out to be.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help=f"Write the page (….html) or the JSON (….json), or both into a folder: {PAGE}, {JSON}.",
)
@click.option("--digest", help="Refuse any bundle but this one, sha256:….")
@VERIFY
@ALLOW_JOBLIB
@TRUSTED
def card(
    directory: Path,
    labels: Path | None,
    label: str,
    out: Path | None,
    trusted: Sequence[str],
    **options: Any,
) -> None:
    """Write the model's card: what a bundle holds, how good its answers are, and what proves that.

    Without --out the JSON is printed. The page needs the extra `report`.
    """
    from tabserve.card import contents

    try:
        found = contents.of_folder(directory, labels, label, trusted=trusted_names(trusted), **options)
    except BundleError as error:
        raise click.ClickException(str(error)) from None
    if out is None:
        click.echo(contents.encoded(found), nl=False)
        return
    for path in [out] if out.suffix in (".html", ".json") else [out / PAGE, out / JSON]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_page(found) if path.suffix == ".html" else contents.encoded(found))
        click.echo(f"{path}: the card of {found.name} {found.version}")


def _page(found: Card) -> bytes:
    # Jinja is of an extra of its own.
    from tabserve.card.page import page

    return page(found).encode()
