"""MLServer's own command on a folder of settings: mlserver_settings.py HTTP GRPC MODEL [WORKERS [BATCH SECONDS]]."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def main(http: str, grpc: str, model: str, workers: str = "", batch: str = "", seconds: str = "") -> None:
    """Write settings.json and model-settings.json, and become `mlserver start`."""
    folder = Path(tempfile.mkdtemp(prefix="mlserver-"))
    server = {"host": "127.0.0.1", "http_port": int(http), "grpc_port": int(grpc), "metrics_port": int(http) + 1000}
    served: dict[str, Any] = {
        "name": "bench",
        "implementation": "mlserver_xgboost.XGBoostModel",
        "parameters": {"uri": model},
    }
    if workers:
        server["parallel_workers"] = int(workers)
    if batch:
        served |= {"max_batch_size": int(batch), "max_batch_time": float(seconds)}
    (folder / "settings.json").write_text(json.dumps(server))
    (folder / "model-settings.json").write_text(json.dumps(served))
    command = Path(sys.executable).with_name("mlserver")
    os.chdir(folder)
    os.execv(command, [str(command), "start", str(folder)])


if __name__ == "__main__":
    main(*sys.argv[1:])
