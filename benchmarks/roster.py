"""The servers that are compared, and how each is started.

In a command `{python}` is its environment's, `{peers}` the folder of their scripts, `{bundle}` and `{native}` the
model's folders, `{http}` and `{grpc}` the ports clients use, `{inner_http}` and `{inner_grpc}` those of a predictor
behind a transformer, `{answer}` a file with the bytes tabserve answered first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.payloads import Answers

Command = tuple[str, ...]


@dataclass(frozen=True)
class Peer:
    """A server: its environment, its processes (the one clients talk to first) and what it answers with."""

    name: str
    title: str
    environment: str
    commands: tuple[Command, ...]
    answers: Answers = "probabilities"
    variables: Mapping[str, str] = field(default_factory=dict)


_LOCAL = ("--host=127.0.0.1",)
_PREDICTOR = ("{python}", "-m", "predictor", "--model_dir={bundle}", "--log_level=warning", *_LOCAL)
_TRANSFORMER = ("{python}", "-m", "transformer", "--model_dir={bundle}", "--log_level=warning", *_LOCAL)
_OUTER = ("--http_port={http}", "--grpc_port={grpc}")
_INNER = ("--http_port={inner_http}", "--grpc_port={inner_grpc}")

_KSERVE_CUSTOM = ("{python}", "{peers}/kserve_custom.py", "--model_file={native}/model.ubj", "--model_name=bench")
_QUIET = ("--enable_latency_logging=false", "--log_config_file={peers}/quiet.json")


TABSERVE = Peer("tabserve", "tabserve", "tabserve", ((*_PREDICTOR, *_OUTER),))
NOOP_HTTP = Peer("noop-http", "no-op ASGI on uvicorn", "noop",
                 (("{python}", "{peers}/noop_http.py", "{http}", "{answer}"),), "same")  # fmt: skip
FASTAPI = Peer("fastapi", "FastAPI, orjson, inplace_predict", "fastapi",
               (("{python}", "{peers}/fastapi_service.py", "{http}", "{native}/model.ubj"),))  # fmt: skip
KSERVE_CUSTOM = Peer("kserve-custom", "KServe custom model", "kserve", ((*_KSERVE_CUSTOM, *_OUTER),))
KSERVE_QUIET = Peer("kserve-quiet", "KServe custom model, logs off", "kserve", ((*_KSERVE_CUSTOM, *_QUIET, *_OUTER),))
