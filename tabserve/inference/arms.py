"""Which way a request came: by the route's split, by the header that forces a canary, or as a shadow's copy.

The chart's routes remove both headers from what clients send before they set their own, so a request's arm says which
rule it followed. Only requests of the split compare two releases: those that somebody sent on purpose are no sample.
"""

from __future__ import annotations

ARM = "tabserve-arm"
"""The header, or gRPC metadata, that the rule of the canary's header sets to `forced`."""
SHADOW = "tabserve-shadow"
"""The header of a copy whose answer nobody waits for."""
SPLIT, FORCED, COPIED = "split", "forced", "shadow"


def arm(shadow: bytes | str | None, given: bytes | str | None) -> str:
    """The arm, from what a request has under the names SHADOW and ARM."""
    if shadow is None and given is None:
        return SPLIT
    if shadow is not None:
        return COPIED
    return FORCED if given in (b"forced", "forced") else SPLIT
