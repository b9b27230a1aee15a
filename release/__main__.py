"""`python -m release DIST`: make a release of the last commit (`make release`)."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from release import advisories, images, packing, provenance, sbom
from release.images import ReleaseError
from tabserve import __version__

ROOT = Path(__file__).parent.parent
LOCK = "requirements.lock"
_FILE = click.Path(exists=True, path_type=Path)


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--helm", required=True, type=_FILE)
@click.option("--base-image", default="", help="What the images are built on, NAME@sha256:DIGEST.")
@click.option("--builder", default="", help="docker, podman or buildah; empty: no images are built.")
@click.option("--image", "given", multiple=True, type=_FILE, help="An image that was built elsewhere: archive or root.")
@click.option("--advisories", "base", type=_FILE, help="An advisory data base in OSV's format: a zip file or a folder.")
def main(out: Path, helm: Path, base_image: str, builder: str, given: Sequence[Path], base: Path | None) -> None:
    """Make wheel, chart and images of the last commit, with bills of materials, checksums and provenance, in OUT."""
    try:
        release(out, helm, base_image, builder, given, base)
    except ReleaseError as error:
        raise click.ClickException(str(error)) from None


def release(
    out: Path, helm: Path, base_image: str, builder: str, given: Sequence[Path] = (), base: Path | None = None
) -> None:
    """Make a release in a folder that is empty or new. Raises ReleaseError."""
    if builder:
        images.verify_pinned(base_image)
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise ReleaseError(f"{out}: expected an empty folder, so that a release holds nothing else")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        epoch = packing.sources(ROOT, source)
        _scan(source / LOCK, base)
        made = [packing.wheel(source, epoch, out), packing.chart(source, helm, epoch, out)]
        built = images.build(builder, base_image, source, __version__, out) if builder else []
        made += built + [_bill(image, epoch, out) for image in (*built, *given)]
        statement = provenance.statement(made, packing.commit(ROOT), source / LOCK, base_image)
    (out / "provenance.intoto.json").write_text(json.dumps(statement, indent=1) + "\n")
    (out / "SHA256SUMS").write_text(provenance.checksums([*made, out / "provenance.intoto.json"]))
    if not built:
        click.echo("No images were built: give BUILDER=docker (or podman, buildah) and BASE_IMAGE=NAME@sha256:DIGEST.")
    click.echo((out / "SHA256SUMS").read_text(), nl=False)


def _bill(image: Path, epoch: int, out: Path) -> Path:
    name = image.name.removesuffix(".tar")
    target = out / f"{name}.cdx.json"
    target.write_text(json.dumps(sbom.document(image, name, __version__, epoch), indent=1) + "\n")
    return target


def _scan(lock: Path, base: Path | None) -> None:
    if base is None:
        click.echo(f"{lock.name} was not scanned: give ADVISORIES=FILE, such as {advisories.EXPORT}.")
        return
    found = advisories.scan(lock.read_text(), base)
    for each in found:
        click.echo(f"{each.name} {each.version}: {each.advisory} {each.summary}")
    if found:
        raise ReleaseError(f"{lock.name}: {len(found)} advisories; `make lock UPGRADE=1` moves the pins")
    click.echo(f"{lock.name}: no advisory of {base} names a pin.")


if __name__ == "__main__":
    main()
