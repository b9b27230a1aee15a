"""The pages that are answered without the model: health, metadata and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import orjson

from tabserve import __version__
from tabserve.inference.rest import openapi
from tabserve.inference.tensors import ModelMetadata

EXTENSIONS = ["binary_tensor_data", "model_repository"]
JSON = b"content-type: application/json\r\n"
_TEXT = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
_NOT_READY = {"ready": False, "error": "the model is not ready"}
_STALLED = {"live": False, "error": "the server has answered nothing for too long"}


class Page(NamedTuple):
    """A page: status, the lines of its own headers, and body."""

    status: int
    lines: bytes
    body: bytes


Pages: TypeAlias = Mapping[bytes, Callable[[], Page]]
"""A function for each path, which makes its page."""


def health_pages(metadata: ModelMetadata, is_ready: Callable[[], bool], is_live: Callable[[], bool]) -> Pages:
    """The pages that say whether the server is live, and whether it and its model are ready."""
    name = metadata.name
    model = _either(is_ready, {"name": name, "ready": True}, {"name": name, **_NOT_READY})
    return {
        **liveness_pages(is_ready, is_live),
        b"/v1/models/%b" % name.encode(): model,
        **{b"%b/ready" % path: model for path in _model_paths(metadata)},
    }


def liveness_pages(is_ready: Callable[[], bool], is_live: Callable[[], bool]) -> Pages:
    """The pages that say whether a process is live, and whether it is ready."""
    return {
        b"/v2/health/live": _either(is_live, {"live": True}, _STALLED),
        b"/v2/health/ready": _either(is_ready, {"ready": True}, _NOT_READY),
    }


def metadata_pages(metadata: ModelMetadata) -> Pages:
    """The pages of the server's and the model's metadata, and of the contract; each is made once."""
    server = _fixed({"name": "tabserve", "version": __version__, "extensions": EXTENSIONS})
    described = _fixed(metadata_content(metadata))
    models = _fixed({"models": [metadata.name]})
    return {
        b"/": _fixed({"status": "alive"}),
        b"/openapi.json": _fixed(openapi.document(metadata)),
        b"/v2": server,
        b"/v2/": server,
        b"/v1/models": models,
        b"/v2/models": models,
        b"/v2/models/%b/schema" % metadata.name.encode(): _fixed(metadata.contract.schemas),
        **dict.fromkeys(_model_paths(metadata), described),
    }


def metrics_pages(page: Callable[[], bytes]) -> Pages:
    """The page of metrics."""
    return {b"/metrics": lambda: Page(200, _TEXT, page())}


def metadata_content(metadata: ModelMetadata) -> dict[str, Any]:
    """Model metadata in the form of inference_rest.md, with `properties` as in the gRPC message."""
    return {
        "name": metadata.name,
        "versions": metadata.versions,
        "platform": metadata.platform,
        "inputs": [{"name": t.name, "datatype": t.datatype, "shape": t.shape} for t in metadata.inputs],
        "outputs": [{"name": t.name, "datatype": t.datatype, "shape": t.shape} for t in metadata.outputs],
        "properties": metadata.all_properties,
    }


def _model_paths(metadata: ModelMetadata) -> list[bytes]:
    """The model's path, without a version and with each."""
    versions = ["", *(f"/versions/{version}" for version in metadata.versions)]
    return [f"/v2/models/{metadata.name}{version}".encode() for version in versions]


def _fixed(content: object) -> Callable[[], Page]:
    page = Page(200, JSON, orjson.dumps(content))
    return lambda: page


def _either(holds: Callable[[], bool], when: object, otherwise: object) -> Callable[[], Page]:
    pages = Page(200, JSON, orjson.dumps(when)), Page(503, JSON, orjson.dumps(otherwise))
    return lambda: pages[0] if holds() else pages[1]
