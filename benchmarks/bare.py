"""`python -m benchmarks.bare MODEL`: print the median CPU seconds of each bare engine's call, on the server's core."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

import msgspec
import numpy as np

from benchmarks import models
from benchmarks.results import Bare
from benchmarks.servers import SERVER_CORE
from tabserve import bundle
from tabserve.arrays import Features, take
from tabserve.bundle.manifest import EngineName, ModelInfo
from tabserve.engines import selection
from tabserve.engines.engine import Engine

SIZES = (1, 4, 16, 64, 256)
SECONDS = 1.0
FEWEST_CALLS = 5
CONVERTED: EngineName = "onnxruntime"


def measure(model: str) -> list[Bare]:
    """Measure every engine of the model's bundle, in a separate process on the server's core."""
    models.bundle(model)
    command = ["taskset", "-c", str(SERVER_CORE), sys.executable, "-m", "benchmarks.bare", model]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return msgspec.json.decode(done.stdout, type=list[Bare])


def main(model: str) -> None:
    """Time every engine at every size, each call with different rows."""
    loaded = bundle.load(models.bundle(model))
    info = loaded.manifest.model
    features = _features(models.trained(model), info)
    found = []
    names: list[EngineName] = [info.native, *([CONVERTED] if info.onnx else [])]
    for name in names:
        engine = selection.open_engine(loaded, name, threads=1)
        found += [Bare(model, name, size, _seconds(engine, features, size)) for size in SIZES]
    print(msgspec.json.encode(found).decode())


def _features(trained: models.Trained, info: ModelInfo) -> Features:
    if info.input == "matrix":
        return trained.rows.to_numpy(np.float32 if info.datatype == "FP32" else np.float64)
    return {str(name): column.to_numpy() for name, column in trained.rows.items()}


def _seconds(engine: Engine, features: Features, size: int) -> float:
    times: list[float] = []
    began, at = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS or len(times) < FEWEST_CALLS:
        rows = take(features, slice(at, at + size))
        start = time.process_time()
        engine.run(rows, ("predict_proba",))
        times.append(time.process_time() - start)
        at = (at + size) % (models.POOL_ROWS - size)
    return median(times)


if __name__ == "__main__":
    main(*sys.argv[1:])
