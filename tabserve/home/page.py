"""The page as HTML, and the policy that it is sent with."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256

from tabserve.home.contents import Contents
from tabserve.inference.rest.home import FIGURES, Home
from tabserve.pages.digests import short
from tabserve.pages.page import render
from tabserve.schema.ranges import span

_INLINE = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)
"""Styles and scripts; what the script reads, in a `script` with a type, is not run."""


def page(contents: Contents) -> Home:
    """The page, which loads nothing, and runs and is styled by nothing but what is in it."""
    figures = FIGURES.decode().removeprefix("/")
    html = render("home.html", shown=contents, script={**contents.script, "figures": figures}, span=span, short=short)
    return Home(html, policy(html))


def policy(html: str) -> str:
    """The Content-Security-Policy (https://www.w3.org/TR/CSP3/) of a page: its own styles and scripts, by hash."""
    inline: dict[str, list[str]] = {"style": [], "script": []}
    for kind, content in _INLINE.findall(html):
        inline[kind].append(f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'")
    return "; ".join(
        [
            "default-src 'none'",
            f"style-src {' '.join(inline['style'])}",
            f"script-src {' '.join(inline['script'])}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ]
    )
