"""An ONNX file takes no data from other files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tabserve.bundle.errors import BundleError
from tabserve.bundle.files import File
from tabserve.engines.onnxruntime import Session


@pytest.mark.parametrize("place", ["absolute", "above", "here"])
def test_data_of_another_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").mkdir()
    outside, path = tmp_path / "outside.bin", tmp_path / "bundle" / "model.onnx"
    outside.write_bytes(np.ones(2, np.float32).tobytes())
    weights = numpy_helper.from_array(np.ones(2, np.float32), "w")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    location = {"absolute": str(outside), "above": "../outside.bin", "here": "outside.bin"}[place]
    weights.external_data.add(key="location", value=location)
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [given], [made], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())

    with pytest.raises(BundleError, match=r"model\.onnx: not a graph ONNX Runtime can read"):
        Session(File.of(path))
