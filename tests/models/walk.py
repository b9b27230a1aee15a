"""Walk one model: fit it, save it, serve it by both services' cores, and compare it with its own library."""

from __future__ import annotations

import asyncio
import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import orjson

import tabserve.bundle
import tabserve.train
from tabserve.bundle import Bundle, BundleError
from tabserve.bundle.tensors import class_names
from tabserve.engines import parity
from tabserve.inference.model import Context
from tabserve.inference.tensors import (
    InferRequest,
    RequestedOutput,
    Tensor,
)
from tabserve_transformer.model import Transformer
from tests.models.roster import Case
from tests.models.tables import TABLES, Table, target
from tests.unit.cores import Cores

TOLERANCE = 1e-6
ALONE = 8
"""How many records are also sent one by one."""
_METHODS = {"predict": "predict", "predict_proba": "predict_proba", "margin": "decision_function"}
# What fit and predict raise for a table or target that does not fit them.
UNFIT = (ValueError, TypeError, AttributeError, LookupError, NotImplementedError, ArithmeticError, RuntimeError)


class Outcome(NamedTuple):
    """The outcome of a case.

    verdict: `right`, `refused`, `wrong`, `raised` or `unfit`. outputs: what is served. detail: why it is not right.
    """

    key: str
    verdict: str
    outputs: tuple[str, ...] = ()
    converted: bool = False
    detail: str = ""


class Fitted(NamedTuple):
    """A model that its own library fits and evaluates."""

    model: Any
    before: Any
    table: Table
    learnt: str

    def answers(self) -> dict[str, Any]:
        """The library's answers about all rows of the user's frame."""
        frame = self.table.frame if self.before is None else self.before.transform(self.table.frame)
        found = {}
        for name, method in _METHODS.items():
            if hasattr(self.model, method):
                found[name] = np.asarray(getattr(self.model, method)(frame))
        if self.learnt == "anomaly":
            found["anomaly_score"] = -found.pop("margin")
        if hasattr(self.model, "get_booster"):
            found["margin"] = np.asarray(self.model.predict(frame, output_margin=True))
        return found


def walk(case: Case) -> Outcome:
    """Take a case all the way, and silence what it prints and warns about."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        fitted = _fitted(case)
        if fitted is None:
            return Outcome(case.key, "unfit")
        return _served(case, fitted, Path(folder))


def _fitted(case: Case) -> Fitted | None:
    for learnt in case.learns:
        for name in case.tables:
            table = TABLES[name]()
            with contextlib.suppress(*UNFIT):
                fitted = _fit(case, table, learnt)
                fitted.answers()["predict"]
                return fitted
    return None


def _fit(case: Case, table: Table, learnt: str) -> Fitted:
    wanted, given = target(table, learnt), table.training
    before = case.before().fit(given, wanted) if case.before else None
    return Fitted(case.make().fit(given if before is None else before.transform(given), wanted), before, table, learnt)


def _served(case: Case, fitted: Fitted, folder: Path) -> Outcome:
    schema = folder / "schema.yaml"
    schema.write_text(fitted.table.schema(fitted.learnt))
    given = {"schema": schema, "sample": fitted.table.training, "preprocessor": fitted.before}
    try:
        bundle = tabserve.train.save(fitted.model, folder / "bundle", name="m", version="1", **given)
    except BundleError as error:
        return Outcome(case.key, "refused", detail=str(error).replace(f"{folder}/", ""))
    except Exception as error:  # noqa: BLE001  # that it raises anything else is what the walk looks for
        return Outcome(case.key, "raised", detail=_line(error))
    try:
        problem = _misfit(bundle, fitted)
    except Exception as error:  # noqa: BLE001  # or a service, for records that its library answers about
        return Outcome(case.key, "raised", detail=_line(error))
    info = bundle.manifest.model
    verdict = "wrong" if problem else "right"
    return Outcome(case.key, verdict, info.outputs, info.onnx is not None, problem)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _misfit(bundle: Bundle, fitted: Fitted) -> str:
    """What is served differently from the library's answers, "" if nothing is. Raises what a service raises."""
    service, expected = Cores(bundle).transformer, fitted.answers()
    outputs = [name for name in expected if name in bundle.manifest.model.outputs]
    served = asyncio.run(_asked(service, fitted.table, outputs))
    problems = [differs(name, served[name], expected[name]) for name in outputs]
    told = asyncio.run(told_of(service, fitted.table.records()))
    problems += [differs(name, [one[name] for one in told], values) for name, values in decided(bundle, expected)]
    alone = [asyncio.run(told_of(service, [record])) for record in fitted.table.records()[:ALONE]]
    if not _same(told[:ALONE], [one for (one,) in alone]):
        problems.append("single records are answered differently from batches")
    return "; ".join(filter(None, problems))


def decided(bundle: Bundle, expected: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What V1 must answer: the label, which is the model's own class, and its score."""
    info, predicted = bundle.manifest.model, expected["predict"]
    if info.classes:
        places = {value: at for at, value in enumerate(info.classes)}
        chosen = np.array([places[value] for value in predicted.tolist()])
        yield "label", np.array(class_names(bundle), object)[chosen]
        if "predict_proba" in info.outputs:
            yield "score", expected["predict_proba"][np.arange(len(chosen)), chosen]
    elif predicted.ndim == 1:
        yield "score", predicted
    else:
        yield "predict", [dict(zip(bundle.schema.outputs.targets, row, strict=True)) for row in predicted.tolist()]
    if "anomaly_score" in expected:
        yield "score", expected["anomaly_score"]


def differs(name: str, served: Any, expected: Any) -> str:
    if isinstance(expected, list):
        return "" if _same(expected, served) else f"`{name}` differs"
    exact = name in ("label",) or np.asarray(expected).dtype.kind in "OU"
    gap = parity.differences({"": np.asarray(served)}, {"": np.asarray(expected)})[""]
    return f"`{name}` differs by {gap:.3g}" if gap > (0 if exact else TOLERANCE) else ""


def _same(told: Any, alone: Any) -> bool:
    """Whether answers are the same up to rounding of their numbers."""
    if isinstance(told, list | dict):
        pairs = [(told[key], alone[key]) for key in (told if isinstance(told, dict) else range(len(told)))]
        return all(_same(*pair) for pair in pairs)
    return bool(told == alone or (isinstance(told, float) and abs(told - alone) <= TOLERANCE * max(1.0, abs(told))))


async def told_of(service: Transformer, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """V1's answers to records as JSON."""
    body = orjson.dumps({"instances": records})
    told: list[dict[str, Any]] = orjson.loads(await service.predict(body, Context()))["predictions"]
    return told


async def _asked(service: Transformer, table: Table, outputs: Sequence[str]) -> dict[str, Any]:
    """V2's named outputs for records in columns."""
    inputs = tuple(_tensor(str(name), column) for name, column in table.frame.items())
    request = InferRequest(inputs, outputs=tuple(RequestedOutput(name) for name in outputs))
    answered = await service.infer(request, Context())
    return {tensor.name: tensor.array for tensor in answered.outputs}


def _tensor(name: str, column: Any) -> Tensor:
    if column.dtype == object:
        return Tensor(name, "BYTES", np.array([b"" if v is None or v != v else v.encode() for v in column], object))
    datatypes = {"f": "FP64", "i": "INT64", "b": "BOOL"}
    return Tensor(name, datatypes[column.dtype.kind], column.to_numpy())
