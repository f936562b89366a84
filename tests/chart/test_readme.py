import re
import runpy
import shlex

import pytest

from tests.chart import chart

READ = runpy.run_path(str(chart.ROOT / "helm" / "readme.py"))


def test_the_readme_is_written_from_the_values():
    """Else: python helm/readme.py."""
    assert (chart.FOLDER / "README.md").read_text() == READ["render"]()


def test_every_value_and_section_has_a_comment():
    keys = [key for key, _, _ in READ["values"]()]
    assert len(keys) > 120
    assert {"model.name", "serving.replicas.min", "networkPolicy.clients"} <= set(keys)


def test_a_value_without_a_comment_is_named(tmp_path):
    (tmp_path / "values.yaml").write_text("# A.\na: 1\nb: 2\n")
    with pytest.raises(ValueError, match=r"values.yaml:3: b must have a comment"):
        list(READ["values"](tmp_path))


def test_every_values_file_is_named_and_starts_with_what_it_shows():
    readme = (chart.FOLDER / "README.md").read_text()
    for path in chart.CI.values():
        assert f"(ci/{path.name})" in readme
        assert path.read_text().startswith("# ")


def test_the_install_command_gives_values_that_render():
    readme = (chart.FOLDER / "README.md").read_text()
    (command,) = re.findall(r"^helm install churn (?:[^\n]*\\\n)+[^\n]*$", readme, re.MULTILINE)
    words = shlex.split(command.replace("\\\n", ""))
    values = chart.given(words, {})
    assert values["ray"]["faultTolerance"]["embedded"] is True
    assert chart.documents(values, name="churn")
