"""The command line: what is printed where, what it ends with, and how soon it answers."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

import eagleray
from eagleray import cli, spec
from eagleray.spec import document

EXAMPLES = Path(__file__).parents[2] / "examples"
GOOD = "name: x\ndata: {source: 'dataset:diabetes', target: target}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text(GOOD)
    return path


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_help_names_every_command() -> None:
    done = python("-m", "eagleray", "--help")
    assert all(f"  {name} " in done.stdout for name in cli.COMMANDS)


def test_help_imports_no_command_and_nothing_heavy() -> None:
    code = "import sys; from eagleray import cli; cli.main(['--help']); print(*sys.modules)"
    modules = set(python("-c", code).stdout.splitlines()[-1].split())
    assert modules.isdisjoint({"pydantic", "yaml", "rich", "numpy", "pandas", "torch", "ray"})
    assert not any(name.startswith("eagleray.cli.") for name in modules)


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"eagleray {eagleray.__version__}\n"


def test_an_unknown_command_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["chekc"]) == 2
    assert capsys.readouterr().err == (
        f"command: must be one of {', '.join(cli.COMMANDS)}, but got 'chekc'; "
        "did you mean 'check'\n"
    )


def test_a_missing_argument_is_the_users_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check"]) == 2
    assert "Missing argument" in capsys.readouterr().err


def test_schema_prints_a_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(capsys.readouterr().out))


def test_check_prints_the_experiment_its_columns_and_its_space(
    capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    choices = "train.batch_size={choice: [16, 32, 64]}"
    assert cli.main(["check", str(file), "--set", choices, "--set", "tune.metric=r2"]) == 0
    out = capsys.readouterr().out
    assert "  batch_size: {choice: [16, 32, 64]}\n" in out
    assert "# bmi  numeric\n" in out
    assert "# target target: regression, 25 to 346, median 140.5\n" in out
    assert "# space: 1 distributions, 3 configurations\n# compared by: r2" in out


def test_what_check_prints_is_the_same_experiment(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = EXAMPLES / "breast_cancer.yaml"
    assert cli.main(["check", str(path)]) == 0
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out)
    assert spec.load(printed).resolved() == spec.load(path).resolved()


def test_check_tells_the_same_as_json(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    assert cli.main(["check", str(file), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["problems"] == []
    assert facts["rows"] == {"training": 266, "validation": 88, "test": 88}
    assert facts["experiment"] == document.parse(document.write(facts["experiment"]), "")


def test_check_tells_problems_of_the_file_and_of_the_data_at_once(
    capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    file.write_text(GOOD.replace("target: target", "target: targt") + "train: {lr: 0}\n")
    assert cli.main(["check", str(file), "--set", "tune.trails=3"]) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert lines[0].startswith("--set tune.trails: unknown key")
    assert lines[1].startswith(f"{file}:3: train.lr: must be above 0")
    assert lines[2].startswith(f"{file}:2: data.target: ")
    assert len(lines) == 3


def test_check_tells_every_wrong_column_at_once(
    capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    file.with_name("rows.csv").write_text("a,b,c,y\n" + "red,x,2024-13-01,yes\n" * 9)
    file.write_text(
        "name: x\n"
        "data: {source: rows.csv, target: y, drop: [d, e]}\n"
        "features: {a: {type: numeric}, b: {type: boolean}, c: {type: datetime}}\n"
    )
    assert cli.main(["check", str(file)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.removeprefix(str(file)).partition(" but got")[0] for line in lines] == [
        ":2: data.drop: a column of rows.csv is needed,",
        ":2: data.drop: a column of rows.csv is needed,",
        ": a: a number is needed,",
        ": b: true or false is needed,",
        ": c: a date or time in ISO 8601 is needed,",
    ]
    text = file.read_text().replace(", drop: [d, e]", "")
    file.write_text(f"{text}storage: {file.parent.as_uri()}\n")
    assert cli.main(["run", str(file)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["y:", "a:", "b:", "c:"]


def test_problems_come_as_json_too(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    for text in (GOOD + "train: {lr: 0}\n", "[", ""):
        file.write_text(text)
        assert cli.main(["check", str(file), "--json"]) == 2
        assert len(json.loads(capsys.readouterr().out)["problems"]) == 1


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("model: {type: image}", "3: model.type: image needs a column of type image, but got num"),
        ("tune: {metric: f1}", "3: tune.metric: must be one of rmse, mae, r2 for regression"),
        ("train: {loss: 'absent:loss'}", " absent: "),
    ],
)
def test_what_does_not_fit_the_data_is_told(
    capsys: pytest.CaptureFixture[str], file: Path, more: str, problem: str
) -> None:
    file.write_text(GOOD + more)
    assert cli.main(["check", str(file)]) == 2
    assert capsys.readouterr().err.startswith(f"{file}:{problem}")


def test_a_setting_without_a_value_is_refused(
    capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    assert cli.main(["check", str(file), "--set", "tune.trials"]) == 2
    assert capsys.readouterr().err == "--set: must be key=value, but got tune.trials\n"


def test_an_internal_error_is_one_line_and_its_trace_is_kept_for_those_who_ask(
    capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    file.with_name("broken.py").write_text("def rows():\n    raise KeyboardInterrupt\n")
    file.write_text(GOOD.replace("dataset:diabetes", "broken:rows"))
    assert cli.main(["check", str(file)]) == 130
    cli.COMMANDS["broken"] = cli.Command("eagleray.absent", "run", "")
    try:
        assert cli.main(["broken"]) == 1
        assert capsys.readouterr().err == (
            "internal error: ModuleNotFoundError: No module named 'eagleray.absent'; "
            "run with --verbose\n"
        )
        assert cli.main(["broken", "--verbose"]) == 1
        assert "Traceback" in capsys.readouterr().err
    finally:
        del cli.COMMANDS["broken"]
