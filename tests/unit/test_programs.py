"""Programs of torch.export: their outputs are torch's, and no file of theirs runs code."""

from __future__ import annotations

import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eagleray import bundle, errors, imported
from eagleray.engines.export import Export
from tests import elsewhere

CANCER = elsewhere.cancer()
ROWS = CANCER.drop(columns="diagnosis").to_numpy(np.float32).copy()
MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"


class Hostile:
    """What unpickles into a call of `os.mkdir`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self._folder),)


def changed(changes: dict[str, Callable[[Any], Any]]) -> bytes:
    """The network's file with other members; those in JSON are given decoded."""
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(elsewhere.network_file())) as old,
        zipfile.ZipFile(packed, "w") as new,
    ):
        for info in old.infolist():
            data: Any = old.read(info)
            if change := changes.get(info.filename.partition("/")[2]):
                is_json = info.filename.endswith(".json")
                data = json.dumps(change(json.loads(data))) if is_json else change(data)
            new.writestr(info.filename, data)
    return packed.getvalue()


def nodes(change: Callable[[dict[str, Any]], None]) -> Callable[[Any], Any]:
    def apply(model: Any) -> Any:
        change(model["graph_module"]["graph"]["nodes"][0])
        return model

    return apply


def target(name: str) -> dict[str, Callable[[Any], Any]]:
    return {MODEL: nodes(lambda node: node.update(target=name))}


def test_a_program_gives_the_outputs_of_torch() -> None:
    engine = Export.read(elsewhere.network_file())
    expected = elsewhere.Network().eval()(torch.from_numpy(ROWS)).detach().numpy()
    np.testing.assert_allclose(engine.run({"rows": ROWS}), expected, rtol=1e-5)


class Several(torch.nn.Module):
    """Two inputs, two outputs, and layers of many kinds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.norm = torch.nn.Embedding(10, 4), torch.nn.LayerNorm(14)
        self.attention = torch.nn.MultiheadAttention(4, 2, batch_first=True)
        self.layer, self.head = torch.nn.Linear(14, 8), torch.nn.Linear(8, 1)
        self.window = torch.nn.Conv1d(1, 2, 3)

    def forward(self, numbers: torch.Tensor, codes: torch.Tensor) -> Any:
        rows = numbers.shape[0]
        words = self.table(codes)
        words = self.attention(words, words, words)[0].reshape(rows, -1)
        joined = torch.cat([numbers.double().float(), words], 1)[:, :14]
        hidden = torch.nn.functional.gelu(self.layer(self.norm(joined)))
        left, right = hidden.chunk(2, 1)
        mixed = torch.cat([torch.where(left > 0, left, right.exp()), right.clamp(min=0.1)], 1)
        mixed = mixed + self.window(mixed.unsqueeze(1)).mean((1, 2)).unsqueeze(1) * rows
        mixed = mixed / rows + torch.zeros(rows, 1)
        return torch.sigmoid(self.head(mixed)).squeeze(1), mixed


def test_layers_of_many_kinds_give_the_outputs_of_torch_and_one_output_is_chosen() -> None:
    made, rows = Several().eval(), torch.export.Dim("rows")
    numbers, codes = torch.randn(5, 6), torch.randint(0, 10, (5, 2))
    packed = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of itself
        shapes = ({0: rows}, {0: rows})
        torch.export.save(
            torch.export.export(made, (numbers, codes), dynamic_shapes=shapes), packed
        )
    with pytest.raises(errors.UserError, match=r"output: must be one of (\w+), \w+, but") as caught:
        Export.read(packed.getvalue())
    name = str(caught.value).split()[5].rstrip(",")
    engine = Export.read(packed.getvalue(), output=name)
    numbers, codes = torch.randn(9, 6), torch.randint(0, 10, (9, 2))
    got = engine.run({"numbers": numbers.numpy(), "codes": codes.numpy()})
    np.testing.assert_allclose(got[:, 0], made(numbers, codes)[0].detach().numpy(), rtol=1e-5)


def test_a_program_becomes_a_bundle_whose_logits_are_probabilities() -> None:
    options = imported.Options(target="diagnosis", labels=("malignant", "benign"), logits=True)
    made = bundle.unpack(imported.make("export", elsewhere.network_file(), CANCER, options).files)
    raw = {name: CANCER[name].tolist() for name in CANCER.columns[:30]}
    logits = elsewhere.Network().eval()(torch.from_numpy(ROWS))
    np.testing.assert_allclose(
        made.predict(raw).outputs, torch.softmax(logits, 1).detach().numpy(), atol=1e-5
    )


@pytest.mark.parametrize(
    "name",
    [
        "torch.os.system",
        "torch.load",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.__class__.mro",
        "torch.ops.aten.relu_.default",
        "torch.ops.prims.device_put.default",
        "torch.ops.higher_order.cond",
        "_operator.attrgetter",
        "builtins.exec",
    ],
)
def test_only_pure_operators_of_aten_are_run(name: str) -> None:
    with pytest.raises(errors.UserError, match=f"pure one of ATen, .* but got {name}"):
        Export.read(changed(target(name)))


def test_a_pickled_weight_is_refused_unread(tmp_path: Path) -> None:
    def pickled(config: Any) -> Any:
        config["config"]["scale.weight"]["use_pickle"] = True
        return config

    hostile = pickle.dumps(Hostile(tmp_path / "made"))
    content = changed({WEIGHTS: pickled, "data/weights/weight_0": lambda _: hostile})
    with pytest.raises(errors.UserError, match=r"scale\.weight: a weight must be plain bytes"):
        Export.read(content)
    assert not (tmp_path / "made").exists()


def test_what_torch_would_unpickle_evaluate_or_execute_is_not_even_read(tmp_path: Path) -> None:
    made, code = tmp_path / "made", f"__import__('os').mkdir({str(tmp_path / 'made')!r})"

    def guarded(model: Any) -> Any:
        model["guards_code"] = [code]
        values = model["graph_module"]["graph"]["tensor_values"]
        values["rows"]["sizes"][0]["as_expr"]["expr_str"] = code
        return model

    inputs = {"data/sample_inputs/model.pt": lambda _: pickle.dumps(Hostile(made))}
    engine = Export.read(changed({MODEL: guarded, **inputs}))
    assert engine.run({"rows": ROWS[:3]}).shape == (3, 2)
    assert not made.exists()


@pytest.mark.parametrize(
    ("changes", "law"),
    [
        ({MODEL: lambda model: model | {"schema_version": {"major": 9}}}, "must be 8, but got 9"),
        ({MODEL: lambda model: []}, "torch.export.save is needed"),
        ({"data/weights/weight_0": lambda data: data[:5]}, "torch.export.save is needed"),
        (
            {MODEL: nodes(lambda node: node["inputs"][0].update(arg={"as_string": "/etc/passwd"}))},
            "an argument must be a tensor or a number, but got as_string '/etc/passwd'",
        ),
        (
            {MODEL: nodes(lambda node: node["inputs"][0].update(arg={"as_custom_obj": {}}))},
            "an argument must be a tensor or a number, but got as_custom_obj",
        ),
    ],
    ids=range(5),
)
def test_a_file_that_is_damaged_or_holds_more_than_data_is_refused(
    changes: dict[str, Callable[[Any], Any]], law: str
) -> None:
    with pytest.raises(errors.UserError, match=law):
        Export.read(changed(changes))


def test_a_file_that_unpacks_to_more_than_it_is_is_refused() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/models/model.json", "0" * 1_000_000)
    with pytest.raises(errors.UserError, match="is compressed"):
        Export.read(packed.getvalue())


def test_a_fixed_number_of_rows_is_refused() -> None:
    packed = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of itself
        program = torch.export.export(elsewhere.Network().eval(), (torch.zeros(4, 30),))
        torch.export.save(program, packed)
    with pytest.raises(errors.UserError, match="any number of rows, but takes 4"):
        Export.read(packed.getvalue())
