"""What README and docs say: commands that exist, files that are there, YAML that loads."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from eagleray import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "AGENTS.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def lines() -> list[str]:
    """Every line of a code block, its comment cut off, with the page it stands on."""
    found = []
    for page in PAGES:
        for block in BLOCK.findall(page.read_text()):
            whole = block.replace("\\\n", " ")
            found += [f"{line.split(' #')[0].strip()}" for line in whole.splitlines()]
    return found


def commands(program: str) -> list[str]:
    starts = [line.removeprefix("$ ") for line in lines()]
    return sorted({line for line in starts if line.startswith(program + " ")})


def parse(words: list[str]) -> None:
    """Let typer parse the words, the command not run; it raises for what it does not know."""
    command: Any = typer.main.get_command(cli.app)
    name = "eagleray"
    while hasattr(command, "get_command") and words:
        context = command.make_context(name, [*words[:1], "--help"], resilient_parsing=True)
        name, words = words[0], words[1:]
        command = command.get_command(context, name)
    command.make_context(name, words)


@pytest.mark.parametrize("line", commands("eagleray"))
def test_every_command_in_the_docs_is_one_that_the_command_line_takes(line: str) -> None:
    words = shlex.split(line)[1:]
    stand_in = str(ROOT / "pyproject.toml")  # for files that a reader has yet to write
    parse([stand_in if word.endswith((".csv", ".yaml")) else word for word in words])


@pytest.mark.parametrize("line", commands("make"))
def test_every_make_target_in_the_docs_exists(line: str) -> None:
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert shlex.split(line)[1] in targets


def test_the_tree_in_the_readme_names_files_that_are_there() -> None:
    tree = BLOCK.findall((ROOT / "README.md").read_text())[-1]
    top = ROOT
    for line in tree.splitlines():
        named = line.split()[0]
        if not line.startswith(" "):
            top = ROOT / named
        place = top if not line.startswith(" ") else top / named
        assert place.exists(), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_pages_name_tests_and_files_that_exist() -> None:
    named = set()
    for page in PAGES:
        named |= set(
            re.findall(
                r"`((?:eagleray|ray_jobs|serving|tests|benchmarks|docs)/[\w/.-]+\.(?:py|md))`",
                page.read_text(),
            )
        )
    assert not [path for path in sorted(named) if not (ROOT / path).exists()]
