"""Architectures: what they take, and what they give."""

from pathlib import Path

import pytest
import torch

from eagleray import code, errors
from eagleray.learn import features, models

SHAPE = features.Shape(numeric=3, categories=2, table=7, tokens=11, image=(1, 8, 8))
MODELS: list[models.Options] = [
    models.Mlp(),
    models.Mlp(hidden=(), batch_norm=True, activation="gelu"),
    models.Text(type="text"),
    models.Image(type="image"),
    models.Image(type="image", channels=(4, 8, 16, 32), hidden=()),
]


def batch(rows: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 11, (rows, 5), generator=generator, dtype=torch.int32)
    return {
        "numeric": torch.randn(rows, 3, generator=generator),
        "categories": torch.randint(0, 7, (rows, 2), generator=generator, dtype=torch.int32),
        "tokens": tokens,
        "weights": torch.rand(rows, 5, generator=generator) * (tokens > 0),
        "image": torch.randn(rows, 1, 8, 8, generator=generator),
    }


@pytest.mark.parametrize("options", MODELS)
def test_every_architecture_gives_an_output_a_class_for_each_row(
    options: models.Options,
) -> None:
    model = models.build(options, SHAPE, 4).eval()
    assert model(batch(6)).shape == (6, 4)


@pytest.mark.parametrize("options", MODELS)
def test_a_row_is_judged_alike_alone_and_in_company(options: models.Options) -> None:
    model = models.build(options, SHAPE, 2).eval()
    rows = batch(6)
    alone = torch.cat([model({k: v[i : i + 1] for k, v in rows.items()}) for i in range(6)])
    torch.testing.assert_close(alone, model(rows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [models.Mlp(), models.Text(type="text")])
def test_padding_says_nothing(options: models.Options) -> None:
    model = models.build(options, SHAPE, 2).eval()
    rows = batch(3)
    longer = rows | {
        name: torch.cat([rows[name], torch.zeros(3, 4, dtype=rows[name].dtype)], 1)
        for name in ("tokens", "weights")
    }
    torch.testing.assert_close(model(longer), model(rows))


def own(tmp_path: Path, body: str) -> code.Code:
    (tmp_path / "net.py").write_text(
        f"import torch\ndef build(shape, outputs, width=4):\n    {body}\n"
    )
    return code.read("net:build", tmp_path)


def test_ones_own_function_gets_the_further_keys(tmp_path: Path) -> None:
    made = own(tmp_path, "return torch.nn.Linear(width, outputs)")
    options = models.Custom.model_validate({"type": "net:build", "width": 9})
    model = models.build(options, SHAPE, 2, custom=made)
    assert isinstance(model, torch.nn.Linear)
    assert (model.in_features, model.out_features) == (9, 2)


@pytest.mark.parametrize(
    ("body", "law"), [("return 1", "must give a torch.nn.Module"), ("1 / 0", "ZeroDivisionError")]
)
def test_ones_own_function_that_fails_is_named(tmp_path: Path, body: str, law: str) -> None:
    options = models.Custom.model_validate({"type": "net:build"})
    with pytest.raises(errors.CodeError, match=law):
        models.build(options, SHAPE, 2, custom=own(tmp_path, body))
