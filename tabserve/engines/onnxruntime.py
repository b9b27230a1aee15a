"""Run models and preprocessors in ONNX Runtime, if they were converted when the bundle was saved."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tabserve.arrays import Array, Features, blanked, rows, take
from tabserve.bundle.errors import BundleError
from tabserve.bundle.files import File
from tabserve.bundle.manifest import ModelInfo
from tabserve.engines import parity

_DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(string)": object}
_FLOATS = {"FP32": np.float32, "FP64": np.float64}
FEWEST_ROWS = 128
"""The fewest rows that are worth a thread."""


def library() -> Any:
    """The library, imported with its telemetry off.

    From version 1.29 it reports paths, names of models and texts of errors to its vendor, and keeps them in HOME. The
    library reads the variable at import, so disable_telemetry_events() is too late. A variable already set stays.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


class Session:
    """An ONNX graph with one input for a matrix, or one [rows, 1] per feature, in their order.

    Inputs go by position, because a converter keeps only names that are identifiers.
    """

    def __init__(self, file: File) -> None:
        """Raises BundleError."""
        onnxruntime = library()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # several would add up one row's trees in another order
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 4  # failures are raised as well
        try:
            session = onnxruntime.InferenceSession(file.content, options, providers=["CPUExecutionProvider"])
        except errors() as error:
            reason = str(error).splitlines()[0]
            raise BundleError(
                file.name, f"not a graph ONNX Runtime can read: {reason}", "Save the bundle again."
            ) from error
        self._inputs = [(one.name, _DTYPES[one.type]) for one in session.get_inputs()]
        self.outputs = tuple(one.name for one in session.get_outputs())
        # The inner session: everything run here passes the checks that InferenceSession.run does first, in Python.
        self._session = session._sess

    def run(self, features: Features, outputs: Sequence[str]) -> list[Array]:
        """The named outputs. A missing category becomes the empty text, as in ONNX."""
        if not isinstance(features, np.ndarray):
            columns = zip(self._inputs, features.values(), strict=True)
            fed = {name: _column(column, dtype) for (name, dtype), column in columns}
        elif len(self._inputs) == 1:
            ((name, dtype),) = self._inputs
            fed = {name: features.astype(dtype, copy=False)}
        else:
            fed = {name: _column(features[:, at], dtype) for at, (name, dtype) in enumerate(self._inputs)}
        return list(self._session.run(outputs, fed, None))


class OnnxEngine:
    """A converted model; its floats have the native engine's precision, its classes are the model's own values."""

    name = "onnxruntime"

    def __init__(self, file: File, info: ModelInfo, *, threads: int, reference: Features | None = None) -> None:
        """threads: each computes a part of the rows. reference: rows to prove independence with. Raises BundleError."""
        self._session, self._threads = Session(file), threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="onnxruntime")
        self._missing = info.missing
        self._float, self._targets = _FLOATS[info.datatype], info.targets
        self._class = np.array(info.classes, object if _is_text(info.classes) else None).dtype if info.classes else None
        self.outputs = frozenset(self._session.outputs)
        self.row_independent = False
        self.row_independent = (
            reference is not None and self.name in info.row_independent and parity.rows_are_independent(self, reference)
        )

    def run(self, features: Features, outputs: Sequence[str]) -> dict[str, Array]:
        """The named outputs for every row. Raises onnxruntime's errors."""
        if self._missing and isinstance(features, np.ndarray):
            features = blanked(features, self._missing)
        answers = dict(zip(outputs, self._run(features, outputs), strict=True))
        return {name: self._typed(name, array) for name, array in answers.items()}

    def _run(self, features: Features, outputs: Sequence[str]) -> list[Array]:
        """The outputs, with the rows divided among the threads if there are many, and their answers independent."""
        count = rows(features)
        parts = min(self._threads, count // FEWEST_ROWS) if self.row_independent else 1
        if parts < 2:
            return self._session.run(features, outputs)
        divided = [take(features, slice(count * at // parts, count * (at + 1) // parts)) for at in range(parts)]
        answers = self._pool.map(lambda part: self._session.run(part, outputs), divided)
        return [np.concatenate(arrays) for arrays in zip(*answers, strict=True)]

    def _typed(self, name: str, array: Array) -> Array:
        if name != "predict":
            return array.astype(self._float, copy=False)
        flat = array if self._targets > 1 else array.reshape(-1)
        return flat.astype(self._class or self._float, copy=False)


def _is_text(classes: Sequence[object]) -> bool:
    return isinstance(classes[0], str)


def _column(column: Array, dtype: Any) -> Array:
    if dtype is not object:
        return column.astype(dtype, copy=False).reshape(-1, 1)
    texts = column.tolist()
    if None in texts:
        column = np.array(["" if text is None else text for text in texts], object)
    return column.reshape(-1, 1)


def errors() -> tuple[type[Exception], ...]:
    """The exceptions of ONNX Runtime, which have only their module in common, no base class."""
    state = library().capi.onnxruntime_pybind11_state
    named = [getattr(state, name) for name in dir(state)]
    found = (one for one in named if isinstance(one, type) and issubclass(one, Exception))
    return (*found, RuntimeError, ValueError)
