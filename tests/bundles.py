"""A small model with a column of each kind but images, made without training."""

from typing import Any

import numpy as np
import torch

from eagleray import bundle, code
from eagleray.engines.torch import Torch
from eagleray.learn import features, models, schema

CITIES = ("Bern", "Oslo", "Rome")

COLUMNS = (
    schema.Column(name="age", type="numeric", integer=True),
    schema.Column(name="income $", type="numeric", nullable=True, missing=("?",)),
    schema.Column(name="city", type="categorical", categories=CITIES),
    schema.Column(name="member", type="boolean", nullable=True),
    schema.Column(name="joined", type="datetime", nullable=True),
    schema.Column(name="note", type="text", nullable=True),
)

Raw = dict[str, list[object]]


def rows(count: int, seed: int = 0) -> Raw:
    """Raw values by column, missing ones among them."""
    random = np.random.default_rng(seed)
    words = ["good", "bad", "late", "early", "never"]
    income = (random.normal(5, 2, count).round(2)).tolist()
    return {
        "age": random.integers(18, 90, count).tolist(),
        "income $": [None if index % 7 == 0 else value for index, value in enumerate(income)],
        "city": random.choice(CITIES, count).tolist(),
        "member": [None if index % 5 == 0 else index % 2 == 0 for index in range(count)],
        "joined": [f"2024-0{1 + index % 9}-11T08:00:00" for index in range(count)],
        "note": [" ".join(random.choice(words, 3)) for _ in range(count)],
    }


def instances(raw: Raw) -> list[dict[str, object]]:
    """The same rows as a request has them."""
    return [dict(zip(raw, values, strict=True)) for values in zip(*raw.values(), strict=True)]


def make(
    *,
    seed: int = 0,
    target: schema.Target | None = None,
    columns: tuple[schema.Column, ...] = COLUMNS,
) -> bundle.Bundle:
    """A model with random weights."""
    known = schema.Schema(
        columns=columns,
        target=target or schema.Target(name="left", task="binary", classes=("no", "yes")),
    )
    transforms = features.Transforms.fit(known, {}, schema.parse(known, rows(200)))
    options = models.parse({"type": "mlp", "hidden": [16]})
    torch.manual_seed(seed)
    return bundle.Bundle(
        schema=known,
        transforms=transforms,
        engine=Torch(
            options, models.build(options, transforms.shape, max(1, len(known.target.classes)))
        ),
        scale={"mean": 0.0, "deviation": 1.0},
    )


def files(
    *,
    seed: int = 0,
    target: schema.Target | None = None,
    columns: tuple[schema.Column, ...] = COLUMNS,
) -> dict[str, bytes]:
    """The files of that model, ready to be registered."""
    made = make(seed=seed, target=target, columns=columns)
    golden = {one.name: rows(bundle.GOLDEN_ROWS, seed=7)[one.name] for one in columns}
    return bundle.pack(made, golden, {})


def unfit() -> dict[str, bytes]:
    """The files of a version that does not reproduce its golden rows."""
    made = files()
    wrong = made["golden.json"].replace(b'"outputs":[[0.', b'"outputs":[[0.9')
    return made | {"golden.json": wrong}


def golden(made: bundle.Bundle) -> bundle.Golden:
    """Golden rows of a model, as `bundle.pack` would make them."""
    raw = rows(4, seed=7)
    return bundle.Golden(raw, made.predict(raw).outputs.tolist())


NET = """
import time
import torch

class Net(torch.nn.Module):
    def __init__(self, shape, outputs):
        super().__init__()
        self.layer = torch.nn.Linear(shape.numeric, outputs)

    def forward(self, inputs):
        age = inputs["numeric"][:, 0]
        {behaviour}
        return self.layer(inputs["numeric"])
"""
"""A model of one's own; `behaviour` is a statement before each prediction."""


def behaving(behaviour: str = "pass", *, bias: float = 0.0) -> dict[str, bytes]:
    """The files of a model whose code does something; `bias` is added to the last class."""
    known = make()
    own = code.Code("net:Net", NET.format(behaviour=behaviour))
    options = models.parse({"type": "net:Net"})
    torch.manual_seed(0)
    model: Any = models.build(options, known.transforms.shape, 2, custom=own)
    with torch.no_grad():
        model.layer.bias[-1] += bias
    engine = Torch(options, model, own)
    made = bundle.Bundle(
        schema=known.schema, transforms=known.transforms, engine=engine, scale=known.scale
    )
    return bundle.pack(made, rows(bundle.GOLDEN_ROWS, seed=7), {})
