"""Members that are registered, and those that installed packages add."""

import subprocess
import sys
from pathlib import Path

import pytest

from eagleray import errors, plugins


def test_a_registered_member_is_found_by_its_name() -> None:
    registry: plugins.Registry[int] = plugins.Registry("number")
    registry.register("one", 1)
    assert registry["one"] == 1
    assert "one" in registry
    assert [] not in registry  # what stands in a file may be anything
    assert list(registry) == ["one"]


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    registry: plugins.Registry[int] = plugins.Registry("number")
    registry.register("three", 3)
    with pytest.raises(errors.NotFoundError, match="number: must be one of three, but got 'thee'"):
        registry["thee"]


def test_a_name_is_taken_once() -> None:
    registry: plugins.Registry[str] = plugins.Registry("word")
    registry.register("a", "first")
    with pytest.raises(errors.UserError, match="a name of its own, but got 'a'"):
        registry.register("a", "second")


PRINTS = """
from eagleray import plugins
registry = plugins.Registry("colour")
import sys; sys.modules["seam"] = sys.modules["__main__"]
print(list(registry))
"""


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("import seam; seam.registry.register('red', 1)", "['red']"),
        ("1 / 0", "entry point more of group eagleray: must import colours"),
    ],
)
def test_an_installed_package_adds_members(tmp_path: Path, module: str, expected: str) -> None:
    (tmp_path / "colours.py").write_text(module)
    described = tmp_path / "colours-1.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: colours\nVersion: 1\n")
    (described / "entry_points.txt").write_text("[eagleray]\nmore = colours\n")
    done = subprocess.run(
        [sys.executable, "-c", PRINTS],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"},
    )
    assert expected in done.stdout + done.stderr
