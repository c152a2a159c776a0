"""onnxruntime does its work and nothing besides."""

import os
import subprocess
import sys

SESSION = """
import sys
import onnx.helper as helper
import service.scoring.engines.onnx as engine
x, y = (helper.make_tensor_value_info(name, 1, [1]) for name in "xy")
graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "graph", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
engine._session("any", model.SerializeToString(), 1)
"""


def test_onnxruntime_writes_nothing_about_us(tmp_path):
    """By default it keeps a device id and a database below the home folder, to be sent to its makers."""
    environment = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", SESSION], env=environment, check=True, timeout=120)
    assert list(tmp_path.rglob("*")) == []
