"""Architectures: what they take, and what they give."""

from pathlib import Path
from typing import Any

import pytest
import torch

from eagleray import code, errors
from eagleray.learn import features, models
from eagleray.learn.models import layers, numbers

SHAPE = features.Shape(numeric=3, categories=2, table=7, tokens=11, image=(1, 8, 8))
MODELS: list[models.Options] = [
    models.Mlp(),
    models.Mlp(hidden=(), batch_norm=True, activation="gelu"),
    models.Mlp(numbers="piecewise", number_embedding=4, bins=6),
    models.Mlp(numbers="periodic", number_embedding=4, frequency_scale=1.0),
    models.TabM(type="tabm", members=4, width=8),
    models.TabM(type="tabm", members=4, width=8, numbers="periodic", frequency_scale=1.0),
    models.TabM(type="tabm", members=4, width=8, blocks=1, numbers="none"),
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


@pytest.mark.parametrize("options", MODELS)
def test_every_weight_has_a_gradient(options: models.Options) -> None:
    torch.manual_seed(0)
    model = models.build(options, SHAPE, 4)
    for one in model.modules():
        if isinstance(one, layers.Fitted):
            one.fit(batch(64))
    model(batch(64)).pow(2).sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.abs().sum() > 0, name


def ensemble(outputs: int, **options: Any) -> torch.nn.Module:
    torch.manual_seed(1)
    small = models.TabM(type="tabm", members=5, width=8, dropout=0.0, **options)
    return models.build(small, SHAPE, outputs)


def test_an_ensemble_predicts_the_mean_of_its_members_probabilities() -> None:
    model = ensemble(3)
    output_BC = model.train()(batch(6)).softmax(1)
    assert output_BC.shape == (6 * 5, 3)
    mean_BC = output_BC.reshape(6, 5, 3).mean(1)
    torch.testing.assert_close(model.eval()(batch(6)).softmax(1), mean_BC)
    assert (output_BC.reshape(6, 5, 3).std(1) > 1e-4).any()  # members differ


def test_an_ensemble_of_values_predicts_their_mean() -> None:
    model = ensemble(1)
    output_BC = model.train()(batch(6))
    torch.testing.assert_close(model.eval()(batch(6)), output_BC.reshape(6, 5, 1).mean(1))


def columns(rows: int = 200) -> torch.Tensor:
    """A number of many values, an indicator, a constant, and one whose values nearly meet."""
    generator = torch.Generator().manual_seed(3)
    many = torch.randn(rows, generator=generator)
    near = 1.0 + torch.arange(rows) * 1e-7
    return torch.stack([many, (many > 1).float(), torch.full((rows,), 7.0), near], 1)


@pytest.mark.parametrize(
    "options",
    [
        models.TabM(type="tabm", members=2, width=4, bins=8),
        models.Mlp(numbers="piecewise", number_embedding=4, bins=8),
    ],
)
def test_bins_follow_the_training_rows_and_are_kept_with_the_weights(
    options: models.Options,
) -> None:
    shape = features.Shape(numeric=4)
    fitted, plain = models.build(options, shape, 2), models.build(options, shape, 2)
    (own,) = (one for one in fitted.modules() if isinstance(one, layers.Fitted))
    own.fit({"numeric": columns()})
    assert all(value.isfinite().all() for value in fitted.state_dict().values())
    rows = {"numeric": columns(9)}
    plain.load_state_dict(fitted.state_dict())
    assert plain.eval()(rows).equal(fitted.eval()(rows))


def test_a_number_is_linear_between_the_edges_of_its_bins() -> None:
    module = numbers.Piecewise(1, 4, 1)
    values = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])[:, None]
    module.fit({"numeric": values.repeat(20, 1)})
    with torch.no_grad():
        module.embedding.linear0.weight.zero_()
        module.embedding.linear0.bias.zero_()
        module.embedding.linear.weight.copy_(
            torch.tensor([1.0, 10.0, 100.0, 1000.0])[None, :, None]
        )
        given = module(torch.tensor([[0.5], [1.0], [2.5], [4.0]])).flatten().tolist()
    assert given == pytest.approx([0.5, 1.0, 61.0, 1111.0])


def test_a_value_that_most_rows_share_takes_no_bins_from_the_others() -> None:
    module = numbers.Piecewise(1, 12, 2)
    values = torch.cat([torch.zeros(900), torch.arange(1.0, 101.0)])
    module.fit({"numeric": values[:, None]})
    assert (module.embedding.impl.weight != 0).sum() >= 10
    few = torch.tensor([0.0, 1.0, 1.0, 5.0])[:, None]
    module.fit({"numeric": few.repeat(25, 1)})
    assert (module.embedding.impl.weight != 0).sum() == 2  # edges at 0, 1 and 5


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_bins_of_a_few_rows_are_finite(rows: int) -> None:
    module = numbers.Piecewise(4, 48, 2)
    module.fit({"numeric": columns(rows)})
    assert module(torch.tensor([[1e6] * 4, [-1e6] * 4])).isfinite().all()


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
