"""Training rows with an outlier that are left out, and validation and test rows that are not."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eagleray import cli, errors, spec
from eagleray.learn import features
from eagleray.state.models import Registry
from ray_jobs import learner, search
from ray_jobs.data import encoded, prepare
from tests import judged

RNG = np.random.default_rng(0)
DROP = "{size: {type: numeric, clip: [0.02, 0.98], outliers: drop, scale: none}}"


def experiment(folder: Path, chosen: str = DROP, **columns: np.ndarray) -> spec.Experiment:
    size = RNG.normal(50, 10, 500).round(3)
    size[::50] = 1e6
    frame = pd.DataFrame({"size": size, "other": RNG.random(500), "y": RNG.normal(size=500)})
    frame.assign(**columns).to_csv(folder / "rows.csv", index=False)
    file = folder / "one.yaml"
    file.write_text(
        f"name: one\ndata: {{source: rows.csv, target: y}}\nfeatures: {chosen}\n"
        f"model: {{hidden: [4]}}\ntrain: {{epochs: 2}}\nstorage: {folder.as_uri()}/store\n"
    )
    return spec.load(file)


def encode(made: spec.Experiment) -> tuple[prepare.Dataset, encoded.Encoded]:
    dataset = prepare.dataset(made)
    return dataset, dataset.encode(dataset.fit(made.default().features))


def test_training_rows_beyond_the_quantiles_are_left_out_and_others_are_bounded(
    tmp_path: Path,
) -> None:
    dataset, data = encode(experiment(tmp_path))
    train, size = dataset.split.train, dataset.columns["size"]
    low, high = np.quantile(size[train], [0.02, 0.98])
    within = (size[train] >= low) & (size[train] <= high)
    assert 0 < (~within).sum() < 20
    assert len(data.train) == within.sum()
    assert (data.train.targets == dataset.targets[train[within]]).all()
    assert len(data.validation) == len(dataset.split.validation)
    place = data.transforms.numbers.names.index("size")
    assert isinstance(data.train, encoded.Part)
    kept = data.train.inputs["numeric"][:, place]
    np.testing.assert_allclose(kept, size[train[within]], rtol=1e-6)
    held = data.validation.inputs["numeric"][:, place]
    least, most = size[train[within]].min(), size[train[within]].max()
    expected = size[dataset.split.validation].clip(least, most)
    np.testing.assert_allclose(held, expected, rtol=1e-6)


def test_a_gap_is_no_outlier_and_statistics_are_those_of_the_rows_that_are_left(
    tmp_path: Path,
) -> None:
    size = RNG.normal(0, 1, 500)
    size[::7] = np.nan
    size[1::100] = 1e9
    made = experiment(tmp_path, DROP.replace("scale: none", "scale: standard"), size=size)
    dataset, data = encode(made)
    train = dataset.columns["size"][dataset.split.train]
    assert np.isnan(dataset.columns["size"][dataset.trained(data.transforms)]).sum() == (
        np.isnan(train).sum()
    )
    *_, center, divisor = data.transforms.numbers.affine[:, 0, 0]
    assert abs(center) < 0.3
    assert 0.5 < divisor < 1.5


def test_the_plan_says_how_many_and_so_does_the_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = experiment(tmp_path)
    dataset, data = encode(made)
    gone = len(dataset.split.train) - len(data.train)
    assert cli.main(["check", str(made.path)]) == 0
    said = capsys.readouterr().out
    assert f"outliers: drop: {gone} of 300 training rows are left out" in said
    bounds = data.transforms.bounds["size"]
    assert f"not within size {bounds[0]:g} to {bounds[1]:g}" in said
    state, tensors = data.transforms.state()
    again = features.Transforms.from_state(json.loads(json.dumps(state)), tensors)
    assert again.bounds == data.transforms.bounds


def test_a_winner_scales_its_answers_by_the_rows_that_it_was_trained_on(tmp_path: Path) -> None:
    chosen = "{bmi: {type: numeric, clip: [0.1, 0.9], outliers: drop}}"
    text = judged.DIABETES + f"features: {chosen}\n"
    one = judged.searched(tmp_path, text)
    result = judged.won(one, [judged.trial(one, 1, **{"train.lr": 1e-2})])
    registry = Registry(one.storage)
    manifest = registry.version(one.experiment.name, result.version).manifest
    train = one.dataset.split.train
    trained = one.dataset.trained(one.transforms(one.experiment.default()))
    assert manifest["outliers"] == len(train) - len(trained) > 0
    from eagleray import bundle

    loaded = bundle.load(registry, registry.version(one.experiment.name, result.version))
    assert loaded.scale == loaded.task.scale(one.dataset.targets[trained])
    assert loaded.scale != loaded.task.scale(one.dataset.targets[train])


@pytest.mark.parametrize("model", ["boosting", "tabm", "mlp"])
def test_each_model_trains_on_what_is_left(tmp_path: Path, model: str) -> None:
    made = experiment(tmp_path)
    file = made.path
    file.write_text(file.read_text().replace("{hidden: [4]}", f"{{type: {model}}}"))
    chosen = spec.load(file)
    running = learner.build(chosen.default(), encode(chosen)[1], metric="rmse")
    assert running.epoch()


def test_a_ratio_may_have_outliers_too_and_by_zero_it_is_a_gap(tmp_path: Path) -> None:
    below = np.where(np.arange(500) % 10 == 0, 0.0, 1.0)
    below[3] = 1e-9
    chosen = "{share: {ratio: [other, below], clip: [0.0, 0.99], outliers: drop}}"
    dataset, data = encode(experiment(tmp_path, chosen, below=below))
    assert isinstance(data.train, encoded.Part)
    assert np.isfinite(data.train.inputs["numeric"]).all()
    zeros = (dataset.columns["below"][dataset.trained(data.transforms)] == 0).sum()
    place = data.transforms.numbers.names.index("share")
    marked = len(data.transforms.numbers.names) + data.transforms.numbers.indicators.index(place)
    assert data.train.inputs["numeric"][:, marked].sum() == zeros > 0


def test_a_class_whose_rows_all_are_outliers_is_refused(tmp_path: Path) -> None:
    rare = np.arange(500) % 100 == 0
    size, y = np.where(rare, 1e6, RNG.random(500)), np.where(rare, "fraud", "ok")
    made = experiment(tmp_path, DROP.replace("0.98", "0.95"), size=size, y=y)
    law = "size: outliers: drop must leave training rows of each class, but leaves none of 'fraud'"
    with pytest.raises(errors.DataError, match=law):
        encode(made)


@pytest.mark.parametrize(
    ("chosen", "law"),
    [
        ("{size: {type: numeric, outliers: drop}}", "size.outliers: needs clip beside it"),
        (
            "{size: {type: numeric, clip: [0, 1], outliers: dropp}}",
            "one of clip, drop, .* mean drop",
        ),
        ("{size: {type: text, outliers: drop}}", "needs type: numeric beside it"),
    ],
)
def test_lines_that_make_no_sense_are_refused(tmp_path: Path, chosen: str, law: str) -> None:
    with pytest.raises(errors.SpecError, match=law):
        experiment(tmp_path, chosen)


def test_whether_they_are_dropped_may_be_searched(tmp_path: Path) -> None:
    chosen = DROP.replace("outliers: drop", "outliers: {choice: [clip, drop]}")
    made = experiment(tmp_path, chosen)
    dataset = prepare.dataset(made)
    rows = [
        len(dataset.encode(dataset.fit(one.features)).train)
        for one in search.feature_settings(made)
    ]
    assert rows[0] == 300 > rows[1]
