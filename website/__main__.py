"""`python -m website FOLDER`: write the docs as a site into FOLDER, and print its size and how long it took."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import click

from website import pages

CONFIG = "zensical.toml"


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--source", default="", help="Address of the repository's files, for links to them.")
@click.option("--zensical", default="zensical", help="The program.")
def main(out: Path, source: str, zensical: str) -> None:
    """Build the site strictly: a link or an anchor that leads nowhere is an error."""
    started = time.monotonic()
    shutil.rmtree(out, ignore_errors=True)
    (out / "docs").mkdir(parents=True)
    try:
        pages.write(out / "docs", source)
    except pages.BrokenLink as error:
        raise click.ClickException(str(error)) from None
    config = (pages.ROOT / "website" / CONFIG).read_text().replace("{root}", str(pages.ROOT))
    (out / CONFIG).write_text(config)
    done = subprocess.run([zensical, "build", "--strict", "--clean", "--config-file", CONFIG], cwd=out, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    files = [path for path in (out / "site").rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 2**20
    count = len(list((out / "site").rglob("*.html")))
    click.echo(f"{out / 'site'}: {count} pages, {size:.1f} MB, built in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
