"""Write the chart's README from the comments of its values: `python helm/readme.py`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

CHART = Path(__file__).parent / "eagleray"
INTRO = Path(__file__).with_name("intro.md")


def render(chart: Path = CHART) -> str:
    """The README: what stands in `intro.md`, then a table of all values."""
    rows = [f"| `{key}` | {default} | {comment} |" for key, default, comment in values(chart)]
    table = "\n".join(["| value | default | meaning |", "|---|---|---|", *rows])
    return f"{INTRO.read_text()}\n{table}\n"


def values(chart: Path = CHART) -> Iterator[tuple[str, str, str]]:
    """Each value: its dotted key, its default as JSON, and the comment above it.

    Raises:
        ValueError: a value has no comment.
    """
    text = (chart / "values.yaml").read_text()
    lines = text.splitlines()
    for path, key, node in _leaves(yaml.compose(text)):
        comment = _above(lines, key.start_mark.line)
        if not comment:
            raise ValueError(f"values.yaml:{key.start_mark.line + 1}: {path} must have a comment")
        yield path, _default(node), comment


def _leaves(
    node: yaml.Node | None, path: str = ""
) -> Iterator[tuple[str, yaml.Node, yaml.Node | None]]:
    """Values and, with None, the sections that they are in."""
    assert isinstance(node, yaml.MappingNode)
    for key, value in node.value:
        name = f"{path}{key.value}"
        section = isinstance(value, yaml.MappingNode) and value.value and not _open(name)
        yield name, key, None if section else value
        if section:
            yield from _leaves(value, f"{name}.")


def _open(name: str) -> bool:
    """Whether a mapping is one value: labels, of which anybody may have others."""
    return name.endswith(("Labels", "labels", "annotations", "Annotations", "nodeSelector"))


def _above(lines: list[str], line: int) -> str:
    comment: list[str] = []
    while line and lines[line - 1].lstrip().startswith("# "):
        line -= 1
        comment.insert(0, lines[line].strip().removeprefix("# "))
    return " ".join(comment).replace("|", "\\|")


def _default(node: yaml.Node | None) -> str:
    if node is None:
        return ""
    value = yaml.safe_load(yaml.serialize(node))
    shown = json.dumps(value)
    return f"`{shown}`" if len(shown) <= 40 else "see values.yaml"


if __name__ == "__main__":
    written = CHART / "README.md"
    written.write_text(render())
    sys.stdout.write(f"{written.relative_to(Path.cwd())}\n")
