"""The OpenAPI 3.1 document of a served model: the paths of REST, what each takes and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tabserve.inference.contract import Contract, JsonSchema
from tabserve.inference.tensors import DATATYPES, MAX_DIMENSIONS, ModelMetadata

_TEXT: JsonSchema = {"type": "string"}
_TRUTH: JsonSchema = {"type": "boolean"}
_TEXTS: JsonSchema = {"type": "array", "items": _TEXT}
_SIZE: JsonSchema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_JSON, _BINARY = "application/json", "application/octet-stream"
_BYTES: JsonSchema = {"schema": {"type": "string", "format": "binary"}}
_ERRORS = {
    400: "the request is malformed, or does not fit the model",
    413: "over a limit of bytes or rows",
    415: "a content type or an encoding that is not supported",
    500: "the model failed",
    503: "overloaded, not ready, or without a predictor; the header retry-after says when to ask again",
    504: "the deadline passed",
}
_HEADERS: dict[str, tuple[str, JsonSchema]] = {
    "x-request-id": ("identifies the request, and returns with its answer", _TEXT),
    "x-request-timeout-ms": (
        "milliseconds after which the client no longer waits",
        {"type": "integer", "minimum": 0, "maximum": 999_999_999},
    ),
    "x-on-error": (
        "`fail` (without it) or `record`: what becomes of a batch with bad records",
        {"type": "string", "enum": ["fail", "record"]},
    ),
    "inference-header-content-length": ("bytes of JSON before binary tensors", {"type": "integer", "minimum": 0}),
}


def document(metadata: ModelMetadata) -> JsonSchema:
    """The document. Its paths hold the model's name and versions, so they have no parameters."""
    facts = [f"{name} {metadata.properties[name]}" for name in ("task", "digest") if name in metadata.properties]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": metadata.name,
            "version": metadata.versions[-1],
            "description": "; ".join(["a model behind the Open Inference Protocol", *facts]),
        },
        "paths": {**_model_paths(metadata), **_server_paths(metadata)},
        "components": {
            "schemas": _contract_schemas(metadata) | _tensor_schemas(metadata) | _page_schemas(metadata),
            "responses": {f"Error{status}": _answer(text, "Error") for status, text in _ERRORS.items()},
        },
    }


def _model_paths(metadata: ModelMetadata) -> JsonSchema:
    contract, path = metadata.contract, f"/v2/models/{metadata.name}"
    predict = f"V1: a {contract.given} on each {contract.taken}"
    schema = f"JSON Schemas of a {contract.taken} and of a {contract.given}"
    headers = ("x-on-error",) if contract.sifts else ()
    paths: JsonSchema = {
        f"/v1/models/{metadata.name}:predict": _post("predict", predict, "PredictRequest", "PredictResponse", headers),
        f"/v1/models/{metadata.name}": _get("modelReadyV1", "V1: whether the model is ready", "ModelReady", 503),
        f"{path}/schema": _get("modelSchema", schema, "Schemas"),
    }
    for version in (None, *metadata.versions):
        suffix, of = ("", "") if version is None else (f"/versions/{version}", f"Version{version}")
        paths[f"{path}{suffix}"] = _get(f"modelMetadata{of}", "the model's tensors", "ModelMetadata")
        paths[f"{path}{suffix}/ready"] = _get(f"modelReady{of}", "whether the model is ready", "ModelReady", 503)
        paths[f"{path}{suffix}/infer"] = _infer(f"infer{of}", headers)
    return paths


def _server_paths(metadata: ModelMetadata) -> JsonSchema:
    repository = f"/v2/repository/models/{metadata.name}"
    return {
        "/": _get("alive", "whether the server answers", "Alive"),
        "/openapi.json": _get("openapi", "this document", "Document"),
        "/v1/models": _get("modelsV1", "V1: the models here", "Models"),
        "/v2": _get("serverMetadata", "the server and its extensions", "ServerMetadata"),
        "/v2/models": _get("models", "the models here", "Models"),
        "/v2/health/live": _get("live", "whether the server is live", "Live", 503),
        "/v2/health/ready": _get("ready", "whether the model is ready", "Ready", 503),
        "/v2/repository/index": _post("repositoryIndex", "the models here", "IndexRequest", "IndexResponse"),
        f"{repository}/load": _refused("load", "always refused: this server loads no models"),
        f"{repository}/unload": _refused("unload", "always refused: this server unloads no models"),
    }


def _get(name: str, summary: str, schema: str, *also: int) -> JsonSchema:
    """A page. also: other statuses with the same body."""
    answers = {str(status): _answer(summary, schema) for status in (200, *also)}
    return {"get": {"operationId": name, "summary": summary, "responses": answers}}


def _post(name: str, summary: str, takes: str, gives: str, headers: Sequence[str] = ()) -> JsonSchema:
    return {"post": _work(name, summary, {_JSON: _of(takes)}, {"200": _answer(summary, gives)}, headers)}


def _infer(name: str, headers: Sequence[str]) -> JsonSchema:
    """V2 inference, as JSON or with binary tensors after it."""
    answer = _answer("the outputs", "InferResponse")
    answer["content"][_BINARY] = _BYTES
    body = {_JSON: _of("InferRequest"), _BINARY: _BYTES}
    headers = ("inference-header-content-length", *headers)
    return {"post": _work(name, "V2: tensors to tensors", body, {"200": answer}, headers)}


def _refused(name: str, summary: str) -> JsonSchema:
    return {"post": _work(name, summary, {_JSON: {"schema": {"type": "object"}}}, {})}


def _work(
    name: str, summary: str, body: JsonSchema, answers: Mapping[str, JsonSchema], headers: Sequence[str] = ()
) -> JsonSchema:
    """What takes a place among the requests, and can fail."""
    errors = {str(status): {"$ref": f"#/components/responses/Error{status}"} for status in _ERRORS}
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [_parameter(header) for header in ("x-request-id", "x-request-timeout-ms", *headers)],
        "requestBody": {"required": True, "content": body},
        "responses": {**answers, **errors},
    }


def _parameter(header: str) -> JsonSchema:
    text, schema = _HEADERS[header]
    return {"in": "header", "name": header, "description": text, "schema": schema}


def _answer(text: str, schema: str) -> JsonSchema:
    return {"description": text, "content": {_JSON: _of(schema)}}


def _of(schema: str) -> JsonSchema:
    return {"schema": {"$ref": f"#/components/schemas/{schema}"}}


def _list(schema: str) -> JsonSchema:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{schema}"}}


def _object(required: JsonSchema, **optional: JsonSchema) -> JsonSchema:
    return {"type": "object", "properties": required | optional, "required": list(required)}


def _contract_schemas(metadata: ModelMetadata) -> JsonSchema:
    contract = metadata.contract
    taken, given = contract.taken.capitalize(), contract.given.capitalize()
    schemas = {
        taken: contract.takes,
        given: contract.gives,
        "PredictRequest": _object({"instances": _instances(contract)}),
        "PredictResponse": _object({"predictions": _list(given)}),
        "Schemas": _object({word: {"type": "object"} for word in contract.schemas}),
    }
    return schemas | (_sifted(given) if contract.sifts else {})


def _instances(contract: Contract) -> JsonSchema:
    """The instances of a request, which are all of the same kind if there are several."""
    if "anyOf" not in contract.takes:
        return _list(contract.taken.capitalize())
    return {"anyOf": [{"type": "array", "items": kind} for kind in contract.takes["anyOf"]]}


def _sifted(given: str) -> JsonSchema:
    """Where a batch may have bad records, their predictions are null, and their faults are told."""
    predictions: JsonSchema = {"type": "array", "items": {"anyOf": [_ref(given), {"type": "null"}]}}
    return {
        "Fault": _object({"row": _SIZE, "field": _TEXT, "expected": _TEXT, "got": _TEXT}),
        "PredictResponse": _object({"predictions": predictions}, errors=_list("Fault")),
    }


def _tensor_schemas(metadata: ModelMetadata) -> JsonSchema:
    head = {"name": _TEXT, "shape": {"type": "array", "items": _SIZE, "maxItems": MAX_DIMENSIONS}}
    head["datatype"] = {"type": "string", "enum": list(DATATYPES)}
    parameters: JsonSchema = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
    scalars: JsonSchema = {"type": "array", "items": {"type": ["number", "string", "boolean", "null"]}}
    named = {"model_name": {"const": metadata.name}, "model_version": {"enum": list(metadata.versions)}}
    return {
        "Parameters": parameters,
        "InputTensor": _object(head, parameters=_ref("Parameters"), data={"type": "array", "items": {}}),
        "OutputTensor": _object(head, parameters=_ref("Parameters"), data=scalars),
        "RequestedOutput": _object({"name": _TEXT}, parameters=_ref("Parameters")),
        "InferRequest": _object(
            {"inputs": _list("InputTensor") | {"minItems": 1}},
            id=_TEXT,
            outputs=_list("RequestedOutput"),
            parameters=_ref("Parameters"),
        ),
        "InferResponse": _object({**named, "outputs": _list("OutputTensor")}, id=_TEXT, parameters=_ref("Parameters")),
    }


def _ref(schema: str) -> JsonSchema:
    return {"$ref": f"#/components/schemas/{schema}"}


def _page_schemas(metadata: ModelMetadata) -> JsonSchema:
    shape = {"type": "array", "items": {"type": "integer", "minimum": -1}}
    return {
        "Error": _object({"error": _TEXT}),
        "Alive": _object({"status": _TEXT}),
        "Live": _object({"live": _TRUTH}, error=_TEXT),
        "Ready": _object({"ready": _TRUTH}, error=_TEXT),
        "Document": {"type": "object"},
        "Models": _object({"models": _TEXTS}),
        "ServerMetadata": _object({"name": _TEXT, "version": _TEXT, "extensions": _TEXTS}),
        "ModelReady": _object({"name": {"const": metadata.name}, "ready": _TRUTH}, error=_TEXT),
        "TensorMetadata": _object({"name": _TEXT, "datatype": _TEXT, "shape": shape}),
        "ModelMetadata": _object(
            {
                "name": {"const": metadata.name},
                "versions": _TEXTS,
                "platform": _TEXT,
                "inputs": _list("TensorMetadata"),
                "outputs": _list("TensorMetadata"),
                "properties": {"type": "object", "additionalProperties": _TEXT},
            }
        ),
        "IndexRequest": {"type": "object", "properties": {"ready": _TRUTH}},
        "IndexEntry": _object(dict.fromkeys(("name", "version", "state", "reason"), _TEXT)),
        "IndexResponse": _list("IndexEntry"),
    }
