"""The servers that are compared, and how each is started.

Commands have these placeholders: `{python}` is the environment's Python, `{peers}` the folder of scripts, `{bundle}`
and `{native}` the model's folders. `{http}` and `{grpc}` are the ports that clients use, `{inner_http}` and
`{inner_grpc}` the ports of a predictor behind a transformer. `{answer}` is a file with tabserve's first answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from benchmarks.models import Reasons
from benchmarks.payloads import Answers

Command = tuple[str, ...]


@dataclass(frozen=True)
class Peer:
    """A server: its environment, its processes (first the one that clients talk to) and the kind of its answers.

    reasons: the bands that its bundle has reasons for. authority: the PEM file by which its certificate is verified, if
    it speaks TLS.
    """

    name: str
    title: str
    environment: str
    commands: tuple[Command, ...]
    answers: Answers = "probabilities"
    variables: Mapping[str, str] = field(default_factory=dict)
    reasons: Reasons = "none"
    authority: str = ""


_COMMON = ("--model_dir={bundle}", "--log_level=warning", "--host=127.0.0.1")
_PREDICTOR = ("{python}", "-P", "-m", "tabserve_predictor", "--admin_port={inner_admin}", *_COMMON)
_TRANSFORMER = ("{python}", "-P", "-m", "tabserve_transformer", "--admin_port={admin}", *_COMMON)
_OUTER = ("--http_port={http}", "--grpc_port={grpc}")
_INNER = ("--http_port={inner_http}", "--grpc_port={inner_grpc}")

_KSERVE_CUSTOM = ("{python}", "{peers}/kserve_custom.py", "--model_file={native}/model.ubj", "--model_name=bench")
_KSERVE_XGBSERVER = (
    "{python}",
    "{peers}/kserve_xgbserver.py",
    "--model_file={native}/model.ubj",
    "--model_name=bench",
)
_KSERVE_SKLEARNSERVER = (
    "{python}",
    "{peers}/kserve_sklearnserver.py",
    "--model_file={native}/model.joblib",
    "--model_name=bench",
)
_KSERVE_TRANSFORMER = ("{python}", "{peers}/kserve_transformer.py", "--model_name=bench")
_QUIET = ("--enable_latency_logging=false", "--log_config_file={peers}/quiet.json")
_MLSERVER = ("{python}", "{peers}/mlserver_settings.py", "{http}", "{grpc}", "{native}/model.ubj")


def _script(file: str) -> Command:
    return ("{python}", "{peers}/" + file, "{http}", "{answer}")


TABSERVE = Peer("tabserve", "tabserve", "tabserve", ((*_PREDICTOR, *_OUTER),))
CHAIN = Peer(
    "tabserve-chain",
    "tabserve, transformer and predictor",
    "tabserve",
    ((*_TRANSFORMER, *_OUTER, "--predictor_host=127.0.0.1:{inner_http}"), (*_PREDICTOR, *_INNER)),
)
DECISIONS = replace(CHAIN, name="tabserve-decisions", title="tabserve, records to decisions", answers="decisions")
REASONS = replace(
    DECISIONS, name="tabserve-reasons", title="tabserve, decisions with reasons", answers="reasons", reasons="all"
)
SOME_REASONS = replace(
    DECISIONS,
    name="tabserve-some-reasons",
    title="tabserve, decisions with reasons outside the lowest band",
    answers="some-reasons",
    reasons="some",
)
NOOP_HTTP = Peer("noop-http", "no-op ASGI on uvicorn", "noop", (_script("noop_http.py"),), "same")
NOOP_GRPC = Peer(
    "noop-grpc",
    "no-op grpc.aio",
    "noop",
    (("{python}", "{peers}/noop_grpc.py", "{grpc}", "{answer}"),),
    "same",
)
FASTAPI = Peer(
    "fastapi",
    "FastAPI, orjson, inplace_predict",
    "fastapi",
    (("{python}", "{peers}/fastapi_service.py", "{http}", "{native}/model.ubj"),),
)
KSERVE_CUSTOM = Peer("kserve-custom", "KServe custom model", "kserve", ((*_KSERVE_CUSTOM, *_OUTER),))
KSERVE_QUIET = Peer("kserve-quiet", "KServe custom model, logs off", "kserve", ((*_KSERVE_CUSTOM, *_QUIET, *_OUTER),))
KSERVE_XGBSERVER = Peer("kserve-xgbserver", "KServe xgbserver", "kserve", ((*_KSERVE_XGBSERVER, *_OUTER),), "positive")
KSERVE_SKLEARNSERVER = Peer(
    "kserve-sklearnserver", "KServe sklearnserver", "kserve", ((*_KSERVE_SKLEARNSERVER, *_OUTER),)
)
KSERVE_CHAIN_REST = Peer(
    "kserve-chain-rest",
    "KServe transformer and predictor, V2 REST between",
    "kserve",
    (
        (*_KSERVE_TRANSFORMER, *_OUTER, "--predictor_host=127.0.0.1:{inner_http}", "--predictor_protocol=v2"),
        (*_KSERVE_CUSTOM, *_INNER),
    ),
)
KSERVE_CHAIN_GRPC = Peer(
    "kserve-chain-grpc",
    "KServe transformer and predictor, gRPC between",
    "kserve",
    (
        (*_KSERVE_TRANSFORMER, *_OUTER, "--predictor_host=127.0.0.1:{inner_grpc}", "--predictor_protocol=grpc-v2"),
        (*_KSERVE_CUSTOM, *_INNER),
    ),
)
MLSERVER = Peer("mlserver", "MLServer", "mlserver", (_MLSERVER,), "class")
MLSERVER_SERIAL = Peer("mlserver-serial", "MLServer, no workers", "mlserver", ((*_MLSERVER, "0"),), "class")
MLSERVER_BATCHING = Peer(
    "mlserver-batching",
    "MLServer, no workers, batches of 32 within 5 ms",
    "mlserver",
    ((*_MLSERVER, "0", "32", "0.005"),),
    "class",
)
