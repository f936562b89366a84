"""A version that gives every row one class: wrong, quick and sound in all else."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn import datasets

OPSET, IR = 17, 9
TARGET, CLASSES = "target", ("0", "1", "2")
"""Of the data set of the story's experiment, wine."""


def write(folder: Path, label: str) -> tuple[Path, Path]:
    """The model in ONNX, and rows as clients send them."""
    frame = datasets.load_wine(as_frame=True).frame
    model, rows = folder / "constant.onnx", folder / "rows.csv"
    frame.to_csv(rows, index=False)
    model.write_bytes(_model(len(frame.columns) - 1, CLASSES.index(label)))
    return model, rows


def _model(width: int, index: int) -> bytes:
    """Probabilities that depend on no input."""
    classes = len(CLASSES)
    bias_C = np.full(classes, -3.0, np.float32)
    bias_C[index] = 3.0
    weights = [
        numpy_helper.from_array(np.zeros((width, classes), np.float32), "weights"),
        numpy_helper.from_array(bias_C, "bias"),
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["rows", "weights", "bias"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "constant",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, classes])],
        weights,
    )
    opset = [helper.make_opsetid("", OPSET)]
    made: bytes = onnx.helper.make_model(
        graph, opset_imports=opset, ir_version=IR
    ).SerializeToString()
    return made
