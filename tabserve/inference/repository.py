"""Triton's model repository extension, to read from: the index lists the model, and nothing is loaded or unloaded.

Source: Triton, docs/protocol/extension_model_repository.md.
"""

from __future__ import annotations

from tabserve.inference.tensors import ModelMetadata

REFUSAL = "this server loads and unloads no models: a new bundle is deployed as a new release"


def index(metadata: ModelMetadata, *, ready: bool, only_ready: bool) -> list[dict[str, str]]:
    """The model's versions and their state. only_ready: none while the model is not ready."""
    if only_ready and not ready:
        return []
    state = {"state": "READY", "reason": ""} if ready else {"state": "UNAVAILABLE", "reason": "the model is not ready"}
    return [{"name": metadata.name, "version": version, **state} for version in metadata.versions]
