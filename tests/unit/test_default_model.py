"""The model of a file that names none: by the columns, and as it was in searches from before."""

from pathlib import Path

import pytest

from eagleray import spec
from eagleray.learn import models
from eagleray.state import searches
from ray_jobs import search
from tests import judged

TUMOURS = """
name: tumours
data: {source: 'dataset:breast_cancer', target: target}
train: {lr: {loguniform: [1.0e-4, 1.0e-1]}, epochs: 1}
"""
DIGITS = TUMOURS.replace("breast_cancer", "digits")
ENCODER = """
import numpy as np

def vectors(texts):
    return np.ones((len(texts), 2), "float32")
"""
NOTES = [f"{one} the parcel came {'late' if one % 2 else 'on time'} again" for one in range(60)]


def notes(folder: Path, *others: str) -> str:
    """A table with a column of texts, and numbers under other names."""
    head = ",".join(["note", *others, "kind"])
    rows = [
        ",".join([note, *[str((at * 7) % 60) for _ in others], "ab"[at % 2]])
        for at, note in enumerate(NOTES)
    ]
    (folder / "notes.csv").write_text("\n".join([head, *rows]) + "\n")
    return "name: notes\ndata: {source: notes.csv, target: kind}\nfeatures: {note: {type: text}}\n"


def test_a_table_is_trained_by_tabm(tmp_path: Path) -> None:
    one = judged.searched(tmp_path, TUMOURS)
    assert one.experiment.families == ("tabm",)
    train = one.experiment.default().train
    assert (train.optimizer, train.weight_decay) == ("adamw", 3e-4)
    assert judged.trial(one, 1).best["roc_auc"] > 0.9


def test_pictures_are_trained_by_the_model_for_images(tmp_path: Path) -> None:
    one = judged.searched(tmp_path, DIGITS)
    chosen = one.experiment.configuration({"train.lr": 0.005})
    assert isinstance(chosen.model, models.Image)
    assert chosen.train.optimizer == "adam"
    assert one.experiment.resolved()["train"]["optimizer"] == "adam"


@pytest.mark.parametrize(
    ("others", "encoder", "kind"),
    [((), "", "text"), (("days",), "", "tabm"), ((), ", encoder: 'own:vectors'", "tabm")],
)
def test_texts_alone_are_trained_by_the_model_for_texts(
    tmp_path: Path, others: tuple[str, ...], encoder: str, kind: str
) -> None:
    (tmp_path / "own.py").write_text(ENCODER)
    text = notes(tmp_path, *others).replace("type: text", f"type: text{encoder}")
    assert judged.searched(tmp_path, text).experiment.families == (kind,)


def test_pictures_beside_texts_are_trained_by_a_model_that_reads_both() -> None:
    assert models.default_type({"image", "numeric"}) == "image"
    assert models.default_type({"image", "text"}) == "tabm"


def test_choices_of_users_are_trained_by_the_recommender(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(
        "name: x\ndata: {source: x.csv, target: item, recommend: {user: who}}\ntrain: {epochs: 2}\n"
    )
    chosen = spec.load(file)
    assert isinstance(chosen.model, models.Recommender)
    assert chosen.train.batch_size == 1024
    assert chosen.tasks == {"ranking"}


def test_a_section_with_other_keys_and_no_type_is_mlp_as_before(tmp_path: Path) -> None:
    """Searches of such files go on: the id is that of the release before."""
    one = judged.searched(tmp_path, TUMOURS, **{"model.hidden": "[8]"})
    assert one.experiment.families == ("mlp",)
    file = tmp_path / "x.yaml"
    file.write_text(
        "name: least\ndata: {source: 'dataset:digits', target: target}\nmodel: {hidden: [8]}\n"
        "train: {lr: {loguniform: [0.0001, 0.1]}, epochs: 20}\ntune: {metric: accuracy}\n"
    )
    assert spec.load(file).search_id("data") == "783d982aac64"


def test_an_empty_section_is_none(tmp_path: Path) -> None:
    one, same = (judged.searched(tmp_path, TUMOURS + more) for more in ("", "model: {}\n"))
    assert same.experiment.families == ("tabm",)
    assert same.id == one.id


def test_it_is_the_same_search_as_of_a_file_that_names_the_model(tmp_path: Path) -> None:
    one, named, other = (
        judged.searched(tmp_path, TUMOURS + more)
        for more in ("", "model: {type: tabm}\n", "model: {type: mlp}\n")
    )
    assert one.id == named.id != other.id


def test_a_search_of_the_release_before_goes_on_with_mlp(tmp_path: Path) -> None:
    one = judged.searched(tmp_path, TUMOURS)
    assert one.resumed() is one  # nothing has begun
    old = begun_before(one)
    again = judged.searched(tmp_path, TUMOURS).resumed()
    assert (again.id, again.experiment.families) == (old.search_id, ("mlp",))
    assert again.experiment.default().train.batch_size == 64
    assert [record.number for record in again.records.trials()] == [1]
    assert judged.trial(again, 2).status == "finished"
    assert len(old.trials()) == 2


def test_a_run_that_the_release_before_has_sent_begins_with_mlp(tmp_path: Path) -> None:
    """`package.load` gives the experiment as that release meant it."""
    sent = judged.searched(tmp_path, TUMOURS).experiment.with_earlier_model()
    one = search.Search(sent)
    assert one.experiment.families == one.resumed().experiment.families == ("mlp",)
    assert one.id == sent.search_id(one.dataset.fingerprint)


def test_a_search_that_names_its_model_is_not_taken_for_the_one_before(tmp_path: Path) -> None:
    begun_before(judged.searched(tmp_path, TUMOURS))
    named = judged.searched(tmp_path, TUMOURS + "model: {type: tabm}\n")
    assert named.resumed() is named


def begun_before(one: search.Search) -> searches.Records:
    """Records of a search of this file and these rows with the model that was the default."""
    key = one.experiment.with_earlier_model().search_id(one.dataset.fingerprint)
    records = searches.Records(one.storage, one.experiment.name, key)
    settings = one.experiment.with_earlier_model().counted()
    assert "model" not in settings
    records.define(searches.Definition(settings=settings, rows=one.dataset.fingerprint))
    records.save(searches.Record(number=1, values={"train.lr": 0.01}, status="running"))
    return records
