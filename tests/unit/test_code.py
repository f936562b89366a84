"""The user's own `module:function`."""

import pickle
import platform
import traceback
from pathlib import Path

import pytest

from eagleray import code, errors

NET = """
from dataclasses import dataclass

@dataclass
class Net:
    width: int

def build(width):
    return Net(width)

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "deep.py").write_text("def build():\n    return 1 / 0\n")
    (tmp_path / "broken.py").write_text("import math\nimport no_such_module\n")
    (tmp_path / "typo.py").write_text("def f(:\n    pass\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(1)\n")
    return tmp_path


def test_a_function_is_found_beside_the_experiment_file_with_its_source(folder: Path) -> None:
    found = code.read("net:build", folder)
    assert found.load()(width=4).width == 4
    assert found.source == NET
    assert found.path == "code/net.py"


def test_it_comes_back_from_a_bundles_files_and_from_another_process(folder: Path) -> None:
    found = code.read("models.deep:build", folder)
    files = {found.path: found.source.encode()}
    assert code.from_files("models.deep:build", files) == found
    assert pickle.loads(pickle.dumps(found)).sha256 == found.sha256


def test_a_module_that_is_not_installed_here_is_named_with_the_machine(folder: Path) -> None:
    with pytest.raises(errors.MissingModuleError) as missing:
        code.read("broken:build", folder)
    assert missing.value.module == "no_such_module"
    assert str(missing.value) == (
        "broken.py:2: broken:build: the module must import, but raised ModuleNotFoundError: No "
        f"module named 'no_such_module'; install its package on {platform.node()}, and wherever "
        "else it trains or serves (docs/code.md)"
    )


def test_modules_of_one_name_do_not_stand_in_for_each_other(folder: Path) -> None:
    first = code.read("net:build", folder)
    (folder / "net.py").write_text("def build():\n    return 'other'\n")
    second = code.read("net:build", folder)
    assert second.load()() == "other"
    assert first.load()(1).width == 1


def test_a_module_runs_once(tmp_path: Path) -> None:
    (tmp_path / "once.py").write_text("def f():\n    pass\n")
    assert code.read("once:f", tmp_path).load() is code.read("once:f", tmp_path).load()


def test_an_installed_module_does_as_well(tmp_path: Path) -> None:
    assert code.read("statistics:median", tmp_path).load()([1, 5, 2]) == 2


def test_a_trace_shows_the_users_own_lines(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        code.read("models.deep:build", folder).load()()
    assert "return 1 / 0" in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("net", "code is named module:function, but got 'net'"),
        ("net:", "code is named module:function"),
        ("nett:build", "there is no nett.py in .*; did you mean 'net'"),
        ("no.such:build", "there is no no/such.py in"),
        ("net:bild", "net has no 'bild'; did you mean 'build'"),
        ("net:number", "net:number: a function is needed, but got a value of int"),
        ("broken:f", r"^broken.py:2: broken:f: .* ModuleNotFoundError: No module"),
        ("typo:f", r"^typo.py:1: typo:f: .* SyntaxError"),
        ("leaves:f", r"^leaves.py:1: leaves:f: .* SystemExit: 1"),
    ],
)
def test_code_that_cannot_be_used_is_refused_with_its_place(
    folder: Path, name: str, message: str
) -> None:
    with pytest.raises(errors.CodeError, match=message) as raised:
        code.read(name, folder)
    assert "\n" not in str(raised.value)
