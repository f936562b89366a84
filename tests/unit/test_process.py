"""What a block sets in its process is undone after it."""

import os

import pytest

from eagleray import process


def test_variables_are_put_back_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EAGLERAY_A", "before")
    monkeypatch.delenv("EAGLERAY_B", raising=False)
    monkeypatch.delenv("EAGLERAY_C", raising=False)
    with process.variables({"EAGLERAY_A": "within", "EAGLERAY_B": "within"}):
        assert os.environ["EAGLERAY_A"] == os.environ["EAGLERAY_B"] == "within"
        os.environ["EAGLERAY_C"] = "set by somebody else meanwhile"
    assert os.environ["EAGLERAY_A"] == "before"
    assert "EAGLERAY_B" not in os.environ
    assert "EAGLERAY_C" in os.environ
    del os.environ["EAGLERAY_C"]
