"""The contract of the user's own model, loss and loader: what docs/code.md says of it holds."""

import re
from pathlib import Path

import pytest
import torch

from eagleray import bundle, cli, code, errors, spec
from eagleray.engines.torch import Torch
from eagleray.learn import features, schema, tasks
from ray_jobs import probe, search, training
from ray_jobs.data import prepare

PAGE = (Path(__file__).parents[2] / "docs" / "code.md").read_text()
MODULES = dict(re.findall(r"^```python\n(?=# (\w+\.py))(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
FILES = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
NET = (
    "import sys, torch\n"
    "class Net(torch.nn.Linear):\n"
    "    def __init__(self, shape, outputs):\n"
    "        super().__init__(shape.numeric, outputs)\n"
    "    def forward(self, inputs):\n"
    "        return {}\n"
    "def loss(outputs, targets):\n"
    "    return {}\n"
)
GOOD = ("super().forward(inputs['numeric'])", "torch.nn.functional.cross_entropy(outputs, targets)")
WINE = "name: wine\ndata: {source: 'dataset:wine', target: target}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with every module of the page."""
    assert set(MODULES) == {"nets.py", "losses.py", "optimizers.py", "table.py", "my_features.py"}
    for name, source in MODULES.items():
        (tmp_path / name).write_text(source)
    return tmp_path


def load(folder: Path, text: str) -> spec.Experiment:
    (folder / "own.yaml").write_text(text)
    return spec.load(folder / "own.yaml")


def own(folder: Path, forward: str = GOOD[0], loss: str = GOOD[1]) -> spec.Experiment:
    """An experiment whose model and loss have these bodies, at lines 6 and 8 of net.py."""
    (folder / "net.py").write_text(NET.format(forward, loss))
    return load(folder, WINE + "model: {type: 'net:Net'}\ntrain: {loss: 'net:loss'}\n")


def check(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `eagleray check` says of a file that it must refuse."""
    assert cli.main(["check", str(folder / "own.yaml")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err.removeprefix(f"{folder / 'own.yaml'}: ")


def trainer(experiment: spec.Experiment, metric: str) -> training.Trainer:
    configuration, dataset = experiment.default(), prepare.dataset(experiment)
    data = dataset.encode(dataset.fit(configuration.features))
    return training.Trainer(configuration, data, metric=metric, custom=experiment.code())


@pytest.mark.parametrize("text", FILES)
def test_the_pages_files_pass_check_and_train(
    folder: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = load(folder, text)
    assert cli.main(["check", str(experiment.path)]) == 0
    capsys.readouterr()
    metric = experiment.metric(prepare.dataset(experiment).schema.target.task)
    found = trainer(experiment, metric).epoch()
    assert {metric, "loss", "train_loss", "seconds"} <= set(found)


def test_the_pages_tables_name_all_of_the_inputs_their_types_and_their_widths(
    folder: Path,
) -> None:
    experiment = load(folder, FILES[0])
    dataset = prepare.dataset(experiment)
    data = dataset.encode(dataset.fit(experiment.default().features))
    shape, inputs = data.transforms.shape, data.train.inputs
    described = dict(re.findall(r"^\| `(\w+)` \| (float32|int32) \|", PAGE, re.MULTILINE))
    assert {name: str(array.dtype) for name, array in inputs.items()} == described
    assert inputs["numeric"].shape[1] == shape.numeric
    assert inputs["categories"].shape[1] == shape.categories
    assert 0 <= inputs["categories"].min() <= inputs["categories"].max() < shape.table
    assert inputs["tokens"].shape == inputs["weights"].shape
    assert inputs["tokens"].max() < shape.tokens
    assert inputs["image"].shape[1:] == shape.image
    assert str(data.train.targets.dtype) == "int64"
    fields = re.findall(r"^\| `(\w+)` \| (?:int|tuple or None) \|", PAGE, re.MULTILINE)
    assert fields == list(shape.__dataclass_fields__)


def test_the_pages_error_is_the_one_that_check_prints(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (said,) = re.findall(r"^own\.yaml: (nets\.py:.*)$", PAGE, re.MULTILINE)
    net = MODULES["nets.py"].replace("Linear(shape.numeric,", "Linear(shape.numeric + 1,")
    (folder / "nets.py").write_text(net)
    load(folder, FILES[1])
    assert check(folder, capsys) == said + "\n"


def test_the_pages_columns_and_encoder_give_what_it_says(folder: Path) -> None:
    chosen = (
        "{note: {type: text, encoder: 'my_features:vectors'}, per: {made_by: 'my_features:share',"
        " of: [price, price]}, ending: {type: categorical, made_by: 'my_features:region',"
        " of: [shop]}}"
    )
    text = f"name: own\ndata: {{source: 'table:rows', target: sold}}\nfeatures: {chosen}\n"
    dataset = prepare.dataset(load(folder, text))
    transforms = dataset.fit(spec.load(folder / "own.yaml").default().features)
    assert transforms.shape.numeric == 2 + 64
    assert transforms.shape.tokens == 0
    place = transforms.categories.names.index("ending")
    assert set(transforms.categories.frequent[place]) == {"Be", "Os", "Ro"}


def test_the_pages_error_of_an_encoder_is_the_one_that_is_raised(folder: Path) -> None:
    (said,) = re.findall(r"^(my_features\.py: my_features:vectors: .*)$", PAGE, re.MULTILINE)
    source = MODULES["my_features.py"].replace("return counts\n", "return counts.sum(1) * 1.0\n")
    own_code = code.Code("my_features:vectors", source.replace("np.float32", "np.float64"))
    with pytest.raises(errors.CodeError, match=re.escape(said)):
        features.own.vectors(own_code, ["a text"] * 1024)


@pytest.mark.parametrize(
    ("forward", "loss", "law"),
    [
        ("inputs['numbers']", GOOD[1], r"^net\.py:6: net:Net: .* raised KeyError: 'numbers'"),
        ("sys.exit(3)", GOOD[1], r"^net\.py:6: net:Net: .* raised SystemExit: 3"),
        ("sys.exit()", GOOD[1], r"^net\.py:6: net:Net: .* raised SystemExit$"),
        (
            "inputs['numeric']",
            GOOD[1],
            r"\(B, C\), here \(64, 3\), but gave \(64, 13\) of torch.fl",
        ),
        (f"{GOOD[0]}.argmax(1)", GOOD[1], r"\(B, C\), here .* but gave \(64,\) of torch.int64"),
        (f"{GOOD[0]}.squeeze()", GOOD[1], r"\(B, C\), here \(1, 3\), but gave \(3,\) of"),
        ("torch.nn.Linear(5, 3)(inputs['numeric'])", GOOD[1], r"^net\.py:6: .* RuntimeError: mat1"),
        (
            GOOD[0],
            "outputs.foo",
            r"^net\.py:8: net:loss: .* AttributeError: 'Tensor' object has no",
        ),
        (GOOD[0], "sys.exit('no')", r"^net\.py:8: net:loss: must give a loss, .* SystemExit: no"),
        (
            GOOD[0],
            "torch.autograd.grad((outputs**2).sum(), outputs, create_graph=True)[0].sum()",
            r"^net\.py:8: net:loss: must give a loss, .* RuntimeError: ",
        ),
        (GOOD[0], "1.5", r"^net:loss: must give one number as a tensor, but gave float"),
        (GOOD[0], "outputs[:, 0]", r"must give one number as a tensor, but gave \(64,\)"),
        (GOOD[0], "outputs.detach().sum()", r"^net:loss: .* without gradients"),
    ],
)
def test_check_shows_the_users_own_line_and_what_is_wrong_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], forward: str, loss: str, law: str
) -> None:
    own(tmp_path, forward, loss)
    said = check(tmp_path, capsys)
    assert re.search(law, said), said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("build", "law"),
    [
        ("exit(1)", r"^net\.py:3: net:build: must build a model, but raised SystemExit: 1"),
        (
            "shape.images",
            r"^net\.py:3: .* AttributeError: 'Shape' object has no attribute 'images'",
        ),
        ("torch.nn.Flatten()", r"^net:build: must give a model with weights to train"),
        ("torch.nn.LazyLinear(outputs)", r"^net:build: every layer must know its sizes"),
        ("3", r"^net:build: must give a torch.nn.Module, but gave int"),
        ("torch.nn.Linear(13, 3)", r"^net:build: forward must answer, but raised TypeError: "),
    ],
)
def test_check_tells_of_a_model_that_cannot_be_built_or_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], build: str, law: str
) -> None:
    (tmp_path / "net.py").write_text(
        f"import torch\ndef build(shape, outputs):\n    return {build}\n"
    )
    load(tmp_path, WINE + "model: {type: 'net:build'}\n")
    said = check(tmp_path, capsys)
    assert re.search(law, said), said


def test_a_loader_that_leaves_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.py").write_text("import sys\ndef rows():\n    sys.exit(0)\n")
    load(tmp_path, "name: wine\ndata: {source: 'net:rows', target: target}\n")
    assert check(tmp_path, capsys) == (
        "net.py:3: net:rows: must give a frame, but raised SystemExit: 0\n"
    )


def test_each_loss_that_a_search_may_choose_is_tried(tmp_path: Path) -> None:
    own(tmp_path, loss="torch.sqrt(targets)")
    choice = "{choice: [cross_entropy, 'net:loss']}"
    experiment = load(tmp_path, WINE + f"train: {{loss: {choice}}}\n")
    with pytest.raises(errors.CodeError, match=r"net:loss: must give one number"):
        probe.run(search.Search(experiment))


def test_one_batch_leaves_the_weights_as_they_were(tmp_path: Path) -> None:
    running = trainer(own(tmp_path), "accuracy")
    before = {name: value.clone() for name, value in running.model.state_dict().items()}
    running.probe()
    after = running.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("leaving", ["sys.exit(1)", "exec('raise GeneratorExit')"])
def test_a_model_that_leaves_neither_ends_a_trial_nor_a_replica(
    tmp_path: Path, leaving: str
) -> None:
    forward = f"{GOOD[0]} if inputs['numeric'].shape[0] > 1 or self.training else {leaving}"
    running = trainer(own(tmp_path, forward), "accuracy")
    running.epoch()
    with pytest.raises(errors.CodeError, match=r"net\.py:6: net:Net: forward must answer"):
        running.probe()
    packed = bundle.unpack(_files(tmp_path, running))
    with pytest.raises(errors.CodeError, match=r"net\.py:6: net:Net: forward must answer"):
        packed.predict({name: [1.0] for name in (column.name for column in packed.schema.columns)})


def _files(folder: Path, running: training.Trainer) -> dict[str, bytes]:
    experiment = spec.load(folder / "own.yaml")
    dataset = prepare.dataset(experiment)
    made = bundle.Bundle(
        schema=dataset.schema,
        transforms=running.data.transforms,
        engine=Torch(experiment.default().model, running.model, experiment.code()["net:Net"]),
        scale=tasks.of(dataset.schema.target).scale(dataset.targets[dataset.split.train]),
    )
    some = dataset.take(dataset.split.test[:5])
    return bundle.pack(made, schema.to_json(dataset.schema, some), {})


def test_an_interruption_is_no_fault_of_the_code(tmp_path: Path) -> None:
    experiment = own(tmp_path, "exec('raise KeyboardInterrupt')")
    with pytest.raises(KeyboardInterrupt):
        probe.run(search.Search(experiment))
