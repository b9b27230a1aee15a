"""Render this folder's templates: everything is escaped, and a name that is not given is an error."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **given: Any) -> str:
    """The HTML of a page. template: a file of this folder. given: what it shows, by name."""
    loader = PackageLoader("tabserve", "pages")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**given)
