"""Pictures that are changed in training: what is drawn, resumed, in packs and in groups."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eagleray import errors, spec
from eagleray.learn.columns.image import Augment
from ray_jobs import learner, pack, search, training
from ray_jobs.data import augmentation, encoded, prepare
from ray_jobs.data.reading import Batch
from tests.unit import test_pack, test_training

ALL = "{flip: true, crop: 0.2, rotate: 20, noise: 0.1}"
FILE = """
name: digits
data: {source: 'dataset:digits', target: target}
features: {image: {type: image, augment: AUGMENT}}
model: MODEL
train: {epochs: 3, batch_size: 256, mixup: MIXUP, lr: {choice: [0.001, 0.01]}}
tune: {trials: 1, scheduler: none}
storage: file:///tmp/unused
"""
SMALL = "{type: image, channels: [4], hidden: []}"
DENSE = "{type: mlp, hidden: [16], dropout: 0.0}"


def experiment(
    folder: Path, augment: str = ALL, mixup: float = 0.0, model: str = SMALL, **overrides: str
) -> spec.Experiment:
    file = folder / "digits.yaml"
    text = FILE.replace("AUGMENT", augment).replace("MODEL", model)
    file.write_text(text.replace("MIXUP", str(mixup)))
    return spec.load(file, overrides)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> encoded.Encoded:
    return test_training.encode(experiment(tmp_path_factory.mktemp("digits")))


def trainer(chosen: spec.Experiment, data: encoded.Encoded, lr: float = 1e-3) -> training.Trainer:
    configuration = chosen.configuration({"train.lr": lr})
    return training.Trainer(configuration, data, metric="accuracy")


def pictures(rows: int = 64, height: int = 8, width: int = 8) -> torch.Tensor:
    return torch.rand(rows, 1, height, width, generator=torch.Generator().manual_seed(0))


def changed(images: torch.Tensor, seed: int = 1, **options: Any) -> torch.Tensor:
    return augmentation.changed(images, Augment(**options), torch.Generator().manual_seed(seed))


def test_about_half_of_the_pictures_are_mirrored_and_the_others_are_as_they_were() -> None:
    images = pictures(400)
    given = changed(images, flip=True)
    same = (given == images).flatten(1).all(1)
    mirrored = (given == images.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 150 < mirrored.sum() < 250


@pytest.mark.parametrize("sides", [(8, 8), (6, 12)])
def test_a_quarter_turn_is_exact_where_a_picture_is_turned_so(sides: tuple[int, int]) -> None:
    images = pictures(1, *sides)
    no = torch.zeros(1)
    quarter = augmentation._warped(images, Augment(rotate=180), torch.full((1,), 0.75), no, no, no)
    if sides[0] == sides[1]:
        turned = torch.rot90(images, 1, (2, 3))
        torch.testing.assert_close(quarter, turned, rtol=1e-4, atol=1e-4)
    middle = (
        slice(sides[0] // 2 - 1, sides[0] // 2 + 1),
        slice(sides[1] // 2 - 1, sides[1] // 2 + 1),
    )
    torch.testing.assert_close(
        quarter[:, :, *middle], torch.rot90(images[:, :, *middle], 1, (2, 3)), rtol=1e-4, atol=1e-4
    )
    still = augmentation._warped(images, Augment(rotate=180), torch.full((1,), 0.5), no, no, no)
    torch.testing.assert_close(still, images, rtol=1e-4, atol=1e-5)


def test_a_cut_shows_a_part_of_the_picture_enlarged() -> None:
    ramp = torch.arange(16.0).expand(200, 1, 16, 16)
    given = changed(ramp, crop=0.5)
    width = given[:, 0, 0, -1] - given[:, 0, 0, 0]
    assert (width <= 15.01).all()
    assert width.min() < 9
    assert (given >= -1e-4).all()
    assert (given <= 15.001).all()
    steps = given.diff(dim=3)
    torch.testing.assert_close(
        steps[:, :, :, 3:-3].std(3), torch.zeros(200, 1, 16), rtol=0, atol=1e-3
    )


def test_noise_has_the_deviation_that_the_file_says() -> None:
    noise = changed(pictures(2000), noise=0.25) - pictures(2000)
    assert noise.std().item() == pytest.approx(0.25, rel=0.02)
    assert abs(noise.mean().item()) < 0.01


def test_the_same_seed_draws_the_same_pictures_and_another_one_others() -> None:
    options = {"flip": True, "crop": 0.3, "rotate": 30, "noise": 0.1}
    first, again = (changed(pictures(), 5, **options) for _ in range(2))
    assert first.equal(again)
    assert not first.equal(changed(pictures(), 6, **options))
    assert first.isfinite().all()


def test_pictures_are_mixed_with_those_of_other_rows_and_so_are_their_losses() -> None:
    made = augmentation.Augmentation((), 0.4)
    inputs = {"image": pictures(), "numeric": torch.arange(64.0)[:, None]}
    batch = Batch(inputs, torch.arange(64))
    given = made.apply(batch, 3)
    assert given.mixed is not None
    share, other_B = given.mixed.share, given.mixed.other_B
    assert 0 <= share <= 1
    assert sorted(other_B.tolist()) == list(range(64))
    for name in inputs:
        expected = share * inputs[name] + (1 - share) * inputs[name][other_B]
        torch.testing.assert_close(given.inputs[name], expected)
    some = given.select(slice(3, 9))
    assert [(target.tolist(), part) for target, part in some.truths] == [
        ([3, 4, 5, 6, 7, 8], share),
        (other_B[3:9].tolist(), 1 - share),
    ]


def test_each_column_of_pictures_is_changed_as_its_own_line_says(tmp_path: Path) -> None:
    chosen = spec.Configuration.model_validate(
        {
            "features": {"b": {"type": "image", "augment": {"noise": 1.0}}},
            "model": {"type": "image"},
        }
    )
    images = type("Images", (), {"names": ("a", "b"), "channels": (1, 3)})()
    made = augmentation.Augmentation.of(chosen, images)
    assert made is not None
    before = torch.zeros(5, 4, 3, 3)
    given = made.apply(Batch({"image": before}, torch.zeros(5)), 0).inputs["image"]
    assert not given[:, :1].any()
    assert (given[:, 1:] != 0).all()
    assert not before.any()


def test_only_training_sees_changed_pictures(tmp_path: Path, digits: encoded.Encoded) -> None:
    running = trainer(experiment(tmp_path), digits)
    plain = digits.validation.inputs["image"]
    held = torch.cat([batch.inputs["image"] for batch in running.validation_batches()])
    assert (held.numpy() == plain).all()
    first, again = (next(running.batches(1)).inputs["image"] for _ in range(2))
    assert first.equal(again)
    assert not first.equal(next(running.batches(2)).inputs["image"])
    calm = trainer(experiment(tmp_path, "{}"), digits)
    assert not first.equal(next(calm.batches(1)).inputs["image"])


@pytest.mark.parametrize("batches", [0, 2])
def test_a_training_resumed_equals_one_that_was_not_interrupted_to_the_bit(
    tmp_path: Path, digits: encoded.Encoded, batches: int
) -> None:
    chosen = experiment(tmp_path, mixup=0.3)
    whole, first, second = (trainer(chosen, digits) for _ in range(3))
    test_training.finish(whole)
    first.epoch()
    stops = iter([False] * (batches - 1) + [True])
    assert not batches or first.epoch(lambda: next(stops)) is None
    test_training.copy(first, second, tmp_path)
    torch.manual_seed(99)
    test_training.finish(second)
    assert test_training.without_seconds(second) == test_training.without_seconds(whole)
    assert test_training.equal(second.best_weights, whole.best_weights)


@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_members_of_a_pack_become_what_they_become_alone(
    tmp_path: Path, digits: encoded.Encoded, mixup: float
) -> None:
    chosen = experiment(tmp_path, mixup=mixup, model=DENSE)
    alone, packed = ([trainer(chosen, digits, lr) for lr in (1e-3, 1e-2)] for _ in range(2))
    for _ in range(3):
        for member, done in zip(packed, pack.epoch(packed), strict=True):
            member.record(done)
    for one, other in zip(alone, packed, strict=True):
        test_pack.assert_same(test_training.finish(one), other)
    assert pack.key(chosen.configuration({"train.lr": 0.001})) != pack.key(
        experiment(tmp_path, "{flip: true}", mixup, DENSE).configuration({"train.lr": 0.001})
    )


def test_the_loss_of_mixed_rows_is_that_of_both_targets(
    tmp_path: Path, digits: encoded.Encoded
) -> None:
    running = trainer(experiment(tmp_path, "{}", 0.5, DENSE), digits)
    batch = next(running.batches(1))
    assert batch.mixed is not None
    output_BC = running.model.train()(batch.inputs)
    first, second = (running.loss(output_BC, one_B) for one_B, _ in batch.truths)
    expected = batch.mixed.share * first + (1 - batch.mixed.share) * second
    total = torch.zeros(())
    running._step(batch, total, watch=False)
    assert total.item() / batch.rows == pytest.approx(expected.item(), rel=1e-5)


def test_settings_that_differ_in_their_changes_alone_are_encoded_once(tmp_path: Path) -> None:
    chosen = experiment(tmp_path, "{rotate: {uniform: [0, 30]}, flip: {choice: [true, false]}}")
    assert chosen.encodings == {}
    assert len(chosen.space) == 3
    assert len(list(search.feature_settings(chosen))) == 1
    keys = set()
    for rotate in (0.0, 9.5):
        values = {"features.image.augment.rotate": rotate, "train.lr": 0.001}
        one = chosen.configuration(values | {"features.image.augment.flip": True})
        keys.add(encoded.key(one.features))
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("augment", "law"),
    [
        ("{flipp: true}", r"image.augment.flipp: unknown key; did you mean .*augment.flip$"),
        ("{crop: 1.0}", "image.augment.crop: must be below 1, but got 1.0"),
        ("{rotate: -3}", "image.augment.rotate: must be at least 0, but got -3"),
        ("{rotate: 181}", "image.augment.rotate: must be at most 180"),
        ("{noise: .inf}", "image.augment.noise: must be a finite number"),
        ("{flip: 1}", "image.augment.flip: must be true or false, but got 1"),
        ("true", "image.augment: must be a mapping, but got true"),
        ("{rotate: {uniform: [0, 200]}}", "augment.rotate: must be at most 180, but got 200"),
    ],
)
def test_changes_that_make_no_sense_are_refused(tmp_path: Path, augment: str, law: str) -> None:
    with pytest.raises(errors.SpecError, match=law):
        experiment(tmp_path, augment)


@pytest.mark.parametrize(
    ("text", "law"),
    [
        ("features: {x: {type: numeric, augment: {flip: true}}}", "needs type: image beside it"),
        ("features: {x: {augment: {flip: true}}}", "needs type: image beside it"),
        ("train: {mixup: -1}", "train.mixup: must be at least 0"),
        (
            "model: {type: boosting}\ntrain: {mixup: 0.2}",
            "train.mixup: would do nothing beside model.type: boosting",
        ),
    ],
)
def test_they_are_refused_where_there_are_no_pictures(tmp_path: Path, text: str, law: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(f"name: x\ndata: {{source: 'dataset:wine', target: target}}\n{text}\n")
    with pytest.raises(errors.SpecError, match=law):
        spec.load(file)


def test_rows_without_pictures_or_with_words_are_not_mixed(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    start = "name: x\ntrain: {mixup: {choice: [0.0, 0.2]}}\nstorage: file:///tmp/unused\n"
    file.write_text(start + "data: {source: 'dataset:wine', target: target}\n")
    law = "train.mixup: pictures are needed, and beside them numbers alone, but got no pictures"
    with pytest.raises(errors.DataError, match=law):
        search.Search(spec.load(file))
    (tmp_path / "table.py").write_text(
        "import numpy as np, pandas as pd\n"
        "def rows():\n"
        "    r = np.random.default_rng(0)\n"
        "    return pd.DataFrame({'photo': list(r.random((60, 4, 4))), 'n': r.random(60),\n"
        "        'shop': r.choice(['a', 'b'], 60), 'y': r.choice(['p', 'q'], 60)})\n"
    )
    file.write_text(start + "data: {source: 'table:rows', target: y}\n")
    with pytest.raises(errors.DataError, match="numbers alone, but got shop"):
        search.Search(spec.load(file))
    file.write_text(start + "data: {source: 'table:rows', target: y, drop: [shop]}\n")
    chosen = spec.load(file)
    dataset = prepare.dataset(chosen)
    data = dataset.encode(dataset.fit(chosen.default().features))
    running = learner.build(chosen.configuration({"train.mixup": 0.2}), data, metric="accuracy")
    assert running.epoch()


def test_a_picture_that_does_not_decode_is_missing_and_several_are_refused(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    names = []
    for place in range(30):
        names.append(f"pictures/{place}.png")
        pixels = np.full((4, 4), place, np.uint8)
        Image.fromarray(pixels).save(tmp_path / names[-1])
    for name in names[20:22]:
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:40])
    rows = [f"{name},{'ab'[place % 2]}\n" for place, name in enumerate(names)]
    (tmp_path / "rows.csv").write_text("photo,y\n" + "".join(rows[:21] + rows[22:]))
    file = tmp_path / "x.yaml"
    file.write_text("name: x\ndata: {source: rows.csv, target: y}\n")
    (note,) = prepare.dataset(spec.load(file)).notes
    assert note == "photo: 1 of 29 cannot be read and are taken as missing: pictures/20.png"
    (tmp_path / "rows.csv").write_text("photo,y\n" + "".join(rows))
    with pytest.raises(errors.DataError, match=r"2 of 30 have none: pictures/20\.png, pictures/21"):
        prepare.dataset(spec.load(file))
