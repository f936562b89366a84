"""The experiment file: what is accepted, what is refused and how, and what comes of it."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eagleray import spec
from eagleray.errors import CodeError, SpecError, UserError
from eagleray.learn import models
from eagleray.spec import document, reference, sections
from eagleray.spec.train import Train

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SCHEMA = jsonschema.Draft202012Validator(reference.json_schema())
LEAST = {"name": "least", "data": {"source": "dataset:digits", "target": "target"}}


def blocks() -> list[Any]:
    """YAML in the documentation that speaks of experiments."""
    found = []
    for page in filter(Path.exists, PAGES):
        for number, text in enumerate(
            re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
        ):
            value = document.parse(text, str(page))
            if isinstance(value, dict) and value.keys() <= sections.File.model_fields.keys():
                found.append(pytest.param(value, id=f"{page.name}-{number}"))
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "experiment.yaml"


def problems(file: Path, text: str, overrides: dict[str, str] | None = None) -> list[str]:
    """The problems of a file, without its path."""
    file.write_text(text)
    with pytest.raises(SpecError) as caught:
        spec.load(file, overrides)
    return [line.removeprefix(f"{file}:") for line in caught.value.problems]


def load(file: Path, value: dict[str, Any]) -> spec.Experiment:
    file.write_text(document.write({**LEAST, **value}))
    return spec.load(file)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_sound(path: Path) -> None:
    experiment = spec.load(path)
    assert experiment.name == path.stem.replace("_", "-")
    assert experiment.size > 1
    assert list(SCHEMA.iter_errors(document.read(path).value)) == []


@pytest.mark.parametrize("value", blocks())
def test_every_yaml_in_the_documentation_is_sound(value: dict[str, Any], file: Path) -> None:
    assert load(file, value).space.keys() >= set()
    assert list(SCHEMA.iter_errors({**LEAST, **value})) == []


def test_the_documented_tables_are_those_of_the_schema() -> None:
    page = (ROOT / "docs" / "experiment.md").read_text()
    assert reference.tables() in page, "put `eagleray schema --tables` into docs/experiment.md"
    assert "Attributes:" not in page


def test_values_are_as_in_the_file_and_defaults_beside_them(file: Path) -> None:
    experiment = load(file, {"train": {"lr": 1, "epochs": 3}, "serve": {"replicas": {"max": 9}}})
    train = experiment.default().train
    assert (train.lr, train.epochs, train.batch_size) == (1.0, 3, 64)
    assert (experiment.serve.replicas.min, experiment.serve.replicas.max) == (1, 9)
    assert experiment.storage == "s3://eagleray"


def test_distributions_become_the_space_in_the_order_of_the_file(file: Path) -> None:
    experiment = load(
        file,
        {
            "train": {"early_stopping": {"patience": {"randint": [2, 5]}}},
            "model": {"hidden": [{"choice": [64, 128]}, 32]},
            "features": {"a.b": {"type": "text", "vocabulary": {"choice": [10, 20]}}},
        },
    )
    assert set(experiment.space) == {
        "features.a.b.vocabulary",
        "model.hidden[0]",
        "train.early_stopping.patience",
    }
    assert experiment.size == 12


def test_a_configuration_has_the_values_in_place(file: Path) -> None:
    text = {"model": {"hidden": {"choice": [[128], []]}}, "train": {"lr": {"uniform": [0.2, 0.8]}}}
    experiment = load(file, text)
    chosen = experiment.configuration({"model.hidden": [], "train.lr": 0.25})
    assert isinstance(chosen.model, models.Mlp)
    assert (chosen.model.hidden, chosen.train.lr) == ((), 0.25)
    assert experiment.default().train.lr == 0.5


def test_a_configuration_takes_the_keys_of_the_space_and_legal_values_only(file: Path) -> None:
    experiment = load(file, {"train": {"lr": {"uniform": [0.1, 1]}}})
    with pytest.raises(SpecError, match=r"values must be for train\.lr, but got train\.l"):
        experiment.configuration({"train.l": 1})
    with pytest.raises(SpecError, match=r"train\.lr: must be above 0, but got 0"):
        experiment.configuration({"train.lr": 0})


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_resolved_experiment_is_a_file_of_the_same_experiment(path: Path, file: Path) -> None:
    experiment = spec.load(path)
    file.write_text(document.write(experiment.resolved()))
    again = spec.load(file)
    assert again.resolved() == experiment.resolved()
    assert list(SCHEMA.iter_errors(experiment.resolved())) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_what_a_file_sets_is_a_file_of_the_same_search(path: Path, file: Path) -> None:
    experiment = spec.load(path)
    file.write_text(document.write(experiment.explicit()))
    again = spec.load(file)
    assert again.resolved() == experiment.resolved()
    assert again.search_id("data") == experiment.search_id("data")


def test_a_search_is_the_same_wherever_it_runs_and_however_far_it_goes(file: Path) -> None:
    one = load(file, {"train": {"lr": 0.01}}).search_id("data")
    here = {"storage": "file:///tmp/x", "compute": {"cpus": 2}, "serve": {"replicas": {"max": 2}}}
    far = {"tune": {"trials": 99, "budget": {"minutes": 3}}}
    assert load(file, {"train": {"lr": 1e-2}, **here, **far}).search_id("data") == one
    assert load(file, {"train": {"lr": 0.02}}).search_id("data") != one
    assert load(file, {"train": {"lr": 0.01}, "tune": {"seed": 1}}).search_id("data") != one
    assert load(file, {"train": {"lr": 0.01}}).search_id("other data") != one


def test_a_search_keeps_its_id_from_release_to_release(file: Path) -> None:
    """If this id must change, raise `spec.SEMANTICS`: every search is then run again."""
    train = {"lr": {"loguniform": [1e-4, 1e-1]}, "epochs": 20}
    experiment = load(file, {"train": train, "tune": {"metric": "accuracy"}})
    assert experiment.with_earlier_model().search_id("data") == "f79a9c66e243"
    assert experiment.explicit() == {
        **LEAST,
        "train": train,
        "tune": {"metric": "accuracy"},
        "storage": "s3://eagleray",
    }


def test_each_configuration_of_a_small_space_is_a_trial(file: Path) -> None:
    assert load(file, {"tune": {"trials": 30}}).trials == 1
    drawn = {"train": {"lr": {"choice": [1, 2]}, "epochs": {"randint": [1, 4]}}}
    assert load(file, {"tune": {"trials": 30}, **drawn}).trials == 6
    assert load(file, {"tune": {"trials": 5}, **drawn}).trials == 5


def test_auto_is_the_usual_metric_and_another_must_fit_the_task(file: Path) -> None:
    assert load(file, {}).metric("binary") == "roc_auc"
    assert load(file, {}).metric("regression") == "rmse"
    with pytest.raises(UserError, match=r"tune\.metric: must be one of rmse, mae, r2 for regre"):
        load(file, {"tune": {"metric": "f1"}}).metric("regression")


def test_code_beside_the_file_is_found_and_its_faults_are_told(file: Path) -> None:
    (file.parent / "nets.py").write_text("def build(**options): ...\n")
    model = {"type": "nets:build", "depth": {"randint": [2, 6]}, "kind": {"deep": [1, "a"]}}
    experiment = load(file, {"model": model})
    assert list(experiment.code()) == ["nets:build"]
    assert experiment.default().model.model_extra == {"depth": 3, "kind": {"deep": [1, "a"]}}
    with pytest.raises(CodeError):
        load(file, {"train": {"loss": "absent:loss"}}).code()


def test_a_model_section_comes_back_from_its_json(file: Path) -> None:
    for model in ({"type": "image", "channels": [8]}, {"hidden": []}, {"type": "a:b", "n": [1]}):
        options = load(file, {"model": model}).default().model
        assert models.parse(options.model_dump(mode="json")) == options


def catalogue() -> list[Any]:
    """`broken_laws.txt`: pieces of a file, each with what is said of it."""
    entries = (Path(__file__).parent / "broken_laws.txt").read_text().split("\n\n")[1:]
    pairs = [entry.strip().split("\n! ") for entry in entries]
    return [pytest.param(text, problem, id=text) for text, problem in pairs]


@pytest.mark.parametrize(("text", "problem"), catalogue())
def test_a_broken_law_is_told_with_line_key_law_value_and_what_was_meant(
    text: str, problem: str, file: Path
) -> None:
    data = "" if text.startswith("data:") else "data: {source: s, target: t}\n# what follows\n"
    assert problems(file, f"name: x\n{data}{text}\n") == [problem]


@pytest.mark.parametrize("name", ["Spam", "a_b", "-a", "a-", "1a", "a" * 41, "", "ä"])
def test_a_name_is_a_dns_label_of_40_letters(name: str, file: Path) -> None:
    with pytest.raises(SpecError, match="name: must be lowercase letters, digits and hyphens"):
        load(file, {"name": name})
    assert load(file, {"name": "a" * 40}).name == "a" * 40


def test_all_problems_come_at_once_in_the_order_of_their_lines(file: Path) -> None:
    text = "name: X\ntrain:\n  lr: -1\n  lr: 2\n  epohcs: 3\nmodel: {dropout: {uniform: [-1, 2]}}\n"
    found = problems(file, text, {"tune.trails": "3"})
    assert [line.partition(": ")[0] for line in found] == ["--set tune.trails", *"1134566"]
    assert found[0] == "--set tune.trails: unknown key; did you mean tune.trials"


def test_momentum_may_stand_beside_a_choice_of_optimizers(file: Path) -> None:
    experiment = load(file, {"train": {"momentum": 0.5, "optimizer": {"choice": ["adam", "sgd"]}}})
    assert experiment.resolved()["train"]["momentum"] == 0.5
    assert "momentum" not in load(file, {}).resolved()["train"]


def test_weights_of_classes_are_numbers_of_which_each_may_be_searched(file: Path) -> None:
    plain = load(file, {"train": {"class_weights": {"yes": 5}}})
    assert plain.resolved()["train"]["class_weights"] == {"yes": 5.0}
    weights = {"class_weights": {"choice": ["none", {"yes": 5}, {"yes": 2, "no": 1}]}}
    chosen = load(file, {"train": weights}).configuration({"train.class_weights": {"yes": 5}})
    assert chosen.model_dump(mode="json")["train"]["class_weights"] == {"yes": 5.0}
    drawn = {"train": {"class_weights": {"yes": {"loguniform": [1, 20]}}}}
    searched = load(file, drawn)
    assert searched.configuration({"train.class_weights.yes": 3.5}).train.class_weights == {
        "yes": 3.5
    }
    assert list(SCHEMA.iter_errors({**LEAST, **drawn})) == []


def test_the_target_may_be_told_to_be_a_class(file: Path) -> None:
    load(file, {"features": {"target": {"type": "categorical"}}})
    with pytest.raises(SpecError, match="the target has no options but type, but got 5"):
        load(file, {"features": {"target": {"type": "categorical", "max_categories": 5}}})


def test_a_column_may_have_the_name_of_a_distribution(file: Path) -> None:
    experiment = load(file, {"features": {"choice": {"type": "text", "vocabulary": 5}}})
    assert experiment.default().features["choice"].vocabulary == 5


def test_options_of_a_dropped_column_are_refused(file: Path) -> None:
    data = {**LEAST["data"], "drop": ["a"]}  # type: ignore[dict-item]
    with pytest.raises(SpecError, match=r"features\.a: must be an input, but is in data\.drop"):
        load(file, {"data": data, "features": {"a": {"type": "text"}}})


@pytest.mark.parametrize("text", ["", "3", "- a", "just text"])
def test_a_file_that_is_no_mapping_is_refused(text: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(SpecError, match="must be a mapping of keys to values, but got"):
        spec.load(file)


def test_a_faulty_section_leaves_the_data_to_be_looked_at(file: Path) -> None:
    file.write_text("name: X\ndata: {source: s, target: t}\ntrain: {lr: 0}\nmodel: {hidden: []}\n")
    experiment, found = spec.examine(file)
    assert len(found) == 2
    assert experiment is not None
    assert experiment.data.source == "s"
    assert experiment.default().train == spec.Train()
    file.write_text("name: x\ndata: {source: s}\n")
    assert spec.examine(file)[0] is None


OVER_THE_SCHEMA = [
    {"lr": 1},
    {"name": "A"},
    {"train": {"epochs": "3"}},
    {"train": {"epochs": {"uniform": [1, 2]}}},
    {"train": {"optimizer": {"choice": ["adam", "adm"]}}},
    {"train": {"optimizer": {"uniform": [0, 1]}}},
    {"train": {"lr": {"loguniform": [0, 1]}}},
    {"train": {"lr": {"choice": []}}},
    {"train": {"lr": {"uniform": [1, 2], "choice": [1]}}},
    {"train": {"early_stopping": {"patience": {"randint": [1, 2, 3]}}}},
    {"model": {"dropout": {"uniform": [0, 2]}}},
    {"model": {"type": {"choice": ["mlp", "text"]}}},
    {"model": {"type": "recommander"}},
    {"model": {"hidden": [{"choice": [0]}]}},
    {"features": {"a": {"type": "text", "vocabulary": {"choice": [0]}}}},
    {"features": {"a": {"ngrams": [1]}}},
    {"tune": {"trials": {"choice": [1, 2]}}},
    {"tune": {"folds": 0}},
    {"tune": {"tolerance": "two"}},
    {"tune": {"metric": "f2"}},
    {"compute": {"workers": 0}},
    {"compute": {"cpus": 0}},
    {"storage": "/tmp"},
    {"serve": {"rollout": "shadow"}},
    {"serve": {"rollout": {"steps": [0]}}},
    {"monitor": {}},
]


@pytest.mark.parametrize("value", OVER_THE_SCHEMA, ids=str)
def test_editors_see_what_is_wrong_too(value: dict[str, Any], file: Path) -> None:
    assert not SCHEMA.is_valid({**LEAST, **value})
    with pytest.raises(SpecError):
        load(file, value)


def test_the_json_schema_is_one_and_describes_every_key() -> None:
    schema = reference.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    leaves = [leaf for part in schema["$defs"].values() for leaf in part["properties"].values()]
    leaves += schema["properties"].values()
    assert all("description" in leaf or "$ref" in leaf for leaf in leaves)


KEYS = st.sampled_from([*sections.File.model_fields, *Train.model_fields, "target"])
KINDS = st.sampled_from(["choice", "uniform", "randint", "type", "split", "hidden", "", "a.b"])
WORDS = st.sampled_from(["mlp", "a:b", "grid", "mse", "f1", "text", "s3://eagleray", "", "\x00"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | KINDS, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=150)
@given(st.dictionaries(KEYS, ANYTHING, max_size=6))
def test_whatever_stands_in_a_file_gives_an_experiment_or_problems(value: dict[str, Any]) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(document.write({**LEAST, **value}))
        file.flush()
        experiment, found = spec.examine(file.name)
    assert found or experiment is not None


def test_reading_an_experiment_imports_nothing_heavy() -> None:
    heavy = ["torch", "pandas", "scipy", "ray", "optuna", "sklearn", "boto3", "rich", "typer"]
    code = f"import sys, eagleray.spec; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
