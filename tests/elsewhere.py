"""Models that were made elsewhere: by scikit-learn and LightGBM, on scikit-learn's data sets."""

from __future__ import annotations

import functools
import io
import warnings
from typing import Any

import lightgbm
import numpy as np
import onnx
import pandas as pd
import skl2onnx
import torch
from onnx import TensorProto, helper
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn import datasets
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

OPSET, IR = 17, 9


@functools.cache
def cancer() -> pd.DataFrame:
    """Breast cancer: 30 numbers, and `diagnosis`."""
    data = datasets.load_breast_cancer(as_frame=True)
    names = np.array(["malignant", "benign"])
    return data.data.assign(diagnosis=names[data.target])


@functools.cache
def clients() -> pd.DataFrame:
    """A whole number, a number, a category of which one is `?`, and `left`."""
    random, rows = np.random.default_rng(0), 200
    age, pay = random.integers(18, 80, rows), random.normal(5, 2, rows).round(2)
    city = random.choice(["Bern", "Oslo", "?"], rows)
    left = np.where(age + 10 * (city == "Bern") > 55, "yes", "no")
    return pd.DataFrame({"age": age, "pay": pay, "city": city, "left": left})


@functools.cache
def booster() -> lightgbm.Booster:
    """A booster of `cancer`, 1 for benign."""
    frame = cancer()
    truth = (frame["diagnosis"] == "benign").astype(int)
    options = {"objective": "binary", "verbosity": -1, "num_leaves": 8, "num_threads": 1}
    return lightgbm.train(options, lightgbm.Dataset(frame.drop(columns="diagnosis"), truth), 20)


def booster_text() -> bytes:
    return booster().model_to_string().encode()


class Network(torch.nn.Module):
    """Logits of two classes; without weights of any training."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scale = torch.nn.BatchNorm1d(30)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(30, 16), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(16, 2)
        )

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        logits_BC: torch.Tensor = self.layers(self.scale(rows).reshape(rows.shape[0], 30))
        return logits_BC


@functools.cache
def network_file() -> bytes:
    """The network as a program of `torch.export`."""
    made = Network().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of itself
        rows = {"rows": {0: torch.export.Dim("rows")}}
        program = torch.export.export(made, (torch.zeros(4, 30),), dynamic_shapes=rows)
        packed = io.BytesIO()
        torch.export.save(program, packed)
    return packed.getvalue()


@functools.cache
def classifier() -> Pipeline:
    """Logistic regression of `cancer`."""
    frame = cancer()
    x_BF = frame.drop(columns="diagnosis").to_numpy(np.float32)
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(x_BF, frame["diagnosis"])


def classifier_file(**options: Any) -> bytes:
    """The classifier, with one float matrix as its input."""
    made = classifier()
    row = np.zeros((1, 30), np.float32)
    return skl2onnx.to_onnx(made, row, options={id(made): options}).SerializeToString()


@functools.cache
def mixed() -> Pipeline:
    """Logistic regression of `clients`."""
    frame = clients()
    encoded = make_column_transformer(
        (StandardScaler(), ["age", "pay"]), (OneHotEncoder(handle_unknown="ignore"), ["city"])
    )
    made = make_pipeline(encoded, LogisticRegression())
    return made.fit(frame.drop(columns="left"), frame["left"])


def mixed_file() -> bytes:
    """The pipeline of `clients`, with an input for each column."""
    kinds = {"age": Int64TensorType, "pay": FloatTensorType, "city": StringTensorType}
    inputs = [(name, kind([None, 1])) for name, kind in kinds.items()]
    return skl2onnx.convert_sklearn(mixed(), initial_types=inputs).SerializeToString()


@functools.cache
def diabetes() -> pd.DataFrame:
    """Ten numbers and `target`, a number."""
    return datasets.load_diabetes(as_frame=True).frame


def regressor_file() -> bytes:
    frame = diabetes()
    x_BF = frame.drop(columns="target").to_numpy(np.float32)
    made = LinearRegression().fit(x_BF, frame["target"])
    return skl2onnx.to_onnx(made, x_BF[:1]).SerializeToString()


def graph(
    *nodes: onnx.NodeProto,
    width: int | None = 2,
    rows: int | None = None,
    dtype: int = TensorProto.FLOAT,
    output: int = TensorProto.FLOAT,
    opset: int = OPSET,
    weights: tuple[onnx.TensorProto, ...] = (),
    domains: tuple[str, ...] = (),
) -> bytes:
    """A model in ONNX of these nodes, from `x` (rows, width) to `y`."""
    made = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", dtype, [rows, width])],
        [helper.make_tensor_value_info("y", output, None)],
        list(weights),
    )
    known = [helper.make_opsetid("", opset), *(helper.make_opsetid(one, 1) for one in domains)]
    return helper.make_model(made, opset_imports=known, ir_version=IR).SerializeToString()


def node(kind: str, *inputs: str, domain: str = "", **attributes: object) -> onnx.NodeProto:
    """An operator from `x`, or `inputs`, to `y`."""
    return helper.make_node(kind, inputs or ("x",), ["y"], domain=domain, **attributes)
