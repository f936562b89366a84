"""YAML with line numbers: the content of an experiment file, and the place of each key.

Scalars are those of YAML 1.2 (core schema, https://yaml.org/spec/1.2.2/#103-core-schema): `1e-3`
is a number, and `yes`, `1:30` and `2024-01-01` are text. A key stands once, every key is text, and
tags and anchors are refused. Problems are collected, not raised, so that the rest is validated too.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml

from eagleray.errors import SpecError

Key = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_RESOLVERS = [
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
]


@dataclasses.dataclass
class Document:
    """A file's content, and the place of each key."""

    path: Path
    value: object = None  # mappings, lists, text, numbers, booleans and None
    lines: dict[Key, int] = dataclasses.field(default_factory=dict)  # counted from 1
    overridden: frozenset[Key] = frozenset()  # keys from the command line instead of the file
    problems: list[tuple[int, str]] = dataclasses.field(default_factory=list)  # line and text

    def line(self, key: Key) -> int:
        """The line of a key, or of the nearest section around it; 0 for the command line."""
        heads = [key[:length] for length in range(len(key), -1, -1)]
        if any(head in self.overridden for head in heads):
            return 0
        return next((self.lines[head] for head in heads if head in self.lines), 1)

    def _convert(self, node: yaml.Node | None, key: Key) -> object:
        if node is None:
            return None
        self.lines.setdefault(key, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, key)
        if node.tag not in (_TAG + "map", _TAG + "seq"):
            self._report(node, key, f"tags are not allowed, but got {node.tag}")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key)
        return [self._convert(item, (*key, at)) for at, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, object]:
        mapping: dict[str, object] = {}
        for name, value in node.value:
            inner = (*key, name.value)
            if not isinstance(name, yaml.ScalarNode):
                self._report(name, key, "a key must be text, but got a list or a mapping")
            elif name.value in mapping:
                law = f"a key stands once, but line {self.lines[inner]} holds it too"
                self._report(name, inner, law)
            else:
                self.lines[inner] = name.start_mark.line + 1
                mapping[name.value] = self._convert(value, inner)
        return mapping

    def _scalar(self, node: yaml.ScalarNode, key: Key) -> object:
        try:
            return _SCALARS[node.tag.removeprefix(_TAG)](node.value)
        except KeyError:
            self._report(node, key, f"tags are not allowed, but got {node.tag}")
        except ValueError:
            self._report(node, key, f"must be a number, but got {node.value[:40]}")
        return None

    def _report(self, node: yaml.Node, key: Key, law: str) -> None:
        text = f"{dotted(key)}: {law}".removeprefix(": ")
        self.problems.append((node.start_mark.line + 1, text))


def read(path: Path, overrides: Mapping[str, str] | None = None) -> Document:
    """Read a file, with `overrides` (dotted key to YAML) over it; SpecError if it is no YAML."""
    page = _document(_text(path), path)
    for name, text in (overrides or {}).items():
        page.value = _put(page.value, name.split("."), parse(text, f"--set {name}"))
    page.overridden = frozenset(tuple(name.split(".")) for name in overrides or {})
    return page


def parse(text: str, name: str) -> object:
    """Parse YAML text; SpecError, naming its source `name`, if it is invalid."""
    page = _document(text, name)
    if page.problems:
        raise SpecError(*(f"{name}: {problem}" for _, problem in page.problems))
    return page.value


def write(value: object) -> str:
    """YAML text that `parse` reads back as the same value; small mappings stand in one line."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def dotted(key: Key) -> str:
    """Format a key as `train.early_stopping.patience` or `model.hidden[1]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return text.removeprefix(".")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: must be text in UTF-8, but byte {error.start} is not") from error
    except OSError as error:
        raise SpecError(f"{path}: must be a file that can be read: {error.strerror}") from error


def _document(text: str, name: str | Path) -> Document:
    page = Document(Path(name))
    try:
        page.value = page._convert(yaml.compose(text, Loader=_Loader), ())
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise SpecError(f"{name}:{line}: must be YAML, but holds a control character") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark else 1
        problem = str(error.problem).removeprefix("but ")
        raise SpecError(f"{name}:{line}: must be YAML, but {problem}") from error
    except RecursionError as error:
        raise SpecError(f"{name}: must be YAML, but is nested too deeply") from error
    return page


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", mark)
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> Any:
        node = super().represent_mapping(tag, mapping, flow_style)
        nested = any(isinstance(value, yaml.MappingNode) for _, value in node.value)
        node.flow_style = len(node.value) <= 2 and not nested
        return node

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = True) -> Any:
        return super().represent_sequence(tag, sequence, flow_style)


for _kind, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(f"^(?:{_pattern})$"), _first)
    _Dumper.add_implicit_resolver(_TAG + _kind, re.compile(f"^(?:{_pattern})$"), _first)


def _put(tree: object, key: Sequence[str], value: object) -> object:
    """The tree with `value` at `key`; missing sections are added."""
    if not key:
        return value
    section = dict(tree) if isinstance(tree, dict) else {}
    return section | {key[0]: _put(section.get(key[0]), key[1:], value)}


def _integer(text: str) -> int:
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_SCALARS: dict[str, Callable[[str], object]] = {
    "str": str,
    "int": _integer,
    "float": _float,
    "bool": lambda text: text.lower() == "true",
    "null": lambda _: None,
}
