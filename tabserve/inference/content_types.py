"""MLServer's parameter `content_type` is accepted if V2 means the same without it, and refused otherwise.

V2 has no such parameter, so a server may ignore it like any other unknown one. But then base64 would be scored as
plain text. Source: MLServer 1.7, docs/user-guide/content-type.md and mlserver/codecs:

| content type | of | decoded to | in V2 |
|---|---|---|---|
| `np` | an input, or the only one | an array | the same for numbers; BYTES are cut to one length there |
| `str` | an input, or the only one | UTF-8 text | the same for BYTES |
| `pd` | a request | a column per input | the same where each input is one column |
| `base64`, `datetime`, `pd_json`, … | an input | something else | not at all |

An empty one counts as none, as in MLServer.
"""

from __future__ import annotations

from collections.abc import Sequence

from tabserve.inference.errors import InvalidRequest, quoted

CONTENT_TYPE = "content_type"
"""The name of the parameter."""


def misfit(content_type: object, datatype: str) -> str | None:
    """What is wrong with an input's content type, given its datatype; None if it means what V2 means."""
    same, plain = ("str", "text") if datatype == "BYTES" else ("np", "values")
    if content_type in ("", same):
        return None
    got = quoted(str(content_type))
    return f'expected {CONTENT_TYPE} "{same}" or none for {datatype}, got {got}; send plain {plain}'


def check_request(content_type: object, inputs: Sequence[tuple[str, Sequence[int]]]) -> None:
    """Refuse a whole request's content type if it does not mean what V2 means. Raises InvalidRequest.

    inputs: each input's datatype and shape.
    """
    if content_type == "" or (len(inputs) == 1 and misfit(content_type, inputs[0][0]) is None):
        return
    if content_type == "pd" and all(len(shape) == 1 or tuple(shape[1:]) == (1,) for _, shape in inputs):
        return
    expected = '"pd" where each input is a column, "np" or "str" where there is one input, of numbers or of text'
    got = quoted(str(content_type))
    raise InvalidRequest(f"parameters: expected {CONTENT_TYPE} {expected}, or none, got {got}; send plain tensors")


def check_output(content_type: object, name: str) -> None:
    """Refuse an output's content type that is not V2's own form. Raises InvalidRequest."""
    if content_type not in ("", "np", "str"):
        got = quoted(str(content_type))
        raise InvalidRequest(f'output `{name}`: expected {CONTENT_TYPE} "np", "str" or none, got {got}')
