"""The user's own Python: `module:function`, kept as source so that it can go wherever a model goes.

The module stands beside the experiment file (`models.net:build` is `models/net.py`), or is
installed. It is one file: what it imports must be installed wherever it runs.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import linecache
import re
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eagleray import errors

_NAME = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")


@dataclass(frozen=True)
class Code:
    """A function of the user's, as text: to be hashed, stored, sent to other processes, and run.

    Attributes:
        name: `module:function`.
        source: text of the whole module.
    """

    name: str
    source: str

    @property
    def path(self) -> str:
        """Where a bundle keeps the source."""
        return f"code/{self.name.partition(':')[0]}.py"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.source.encode()).hexdigest()

    def load(self) -> Callable[..., Any]:
        """The function; its module runs once in a process.

        Raises:
            CodeError: the module fails to import, or the function is absent or cannot be called.
        """
        module_name, _, function_name = self.name.partition(":")
        module = _module(module_name, self)
        found = getattr(module, function_name, None)
        if found is None:
            known = [name for name in vars(module) if callable(getattr(module, name))]
            raise errors.CodeError(
                f"{self.name}: the function must be in its module, but {module_name} has no"
                f" {function_name!r}{_did_you_mean(function_name, known)}"
            )
        if not callable(found):
            kind = type(found).__name__
            raise errors.CodeError(f"{self.name}: a function is needed, but got a value of {kind}")
        function: Callable[..., Any] = found
        return function


def is_name(text: str) -> bool:
    """Whether text has the form `module:function`."""
    return _NAME.fullmatch(text) is not None


def read(name: str, folder: Path) -> Code:
    """The user's function beside the experiment file in `folder`, run once to know that it imports.

    Raises:
        CodeError: no such module, or what `Code.load` raises.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise errors.CodeError(f"code is named module:function, but got {name!r}")
    path = folder.joinpath(*match[1].split(".")).with_suffix(".py")
    try:
        source = (path if path.is_file() else _installed(match[1], folder)).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise errors.CodeError(f"{name}: {path} must be Python in UTF-8, but {cause}") from cause
    code = Code(name, source)
    code.load()
    return code


def from_files(name: str, files: Mapping[str, bytes]) -> Code:
    """The function whose source is among a bundle's files."""
    return Code(name, files[Code(name, "").path].decode())


def _installed(module: str, folder: Path) -> Path:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        beside = [path.stem for path in folder.glob("*.py")]
        raise errors.CodeError(
            f"{module}: a module must stand beside the experiment file or be installed, but there"
            f" is no {module.replace('.', '/')}.py in {folder}{_did_you_mean(module, beside)}"
        )
    return Path(spec.origin)


def _module(name: str, code: Code) -> types.ModuleType:
    """The module that the source makes, under a name that no other source can have."""
    private = f"eagleray_code_{code.sha256[:16]}_{name.replace('.', '_')}"
    if private in sys.modules:
        return sys.modules[private]
    module = types.ModuleType(private)
    module.__package__ = name.rpartition(".")[0] or None
    file = f"<{name} {code.sha256[:8]}>"
    linecache.cache[file] = (len(code.source), None, code.source.splitlines(keepends=True), file)
    sys.modules[private] = module
    try:
        exec(compile(code.source, file, "exec"), vars(module))  # noqa: S102 (it is what is asked for)
    except (Exception, SystemExit) as cause:
        del sys.modules[private]
        line = _line(cause, file)
        raise errors.CodeError(
            f"{code.name}: the module must import, but {name}.py{line} raised {cause!r}"
        ) from cause
    return module


def _line(cause: BaseException, file: str) -> str:
    """Where in the file it was, as ` line 3`."""
    if isinstance(cause, SyntaxError) and cause.filename == file:
        return f" line {cause.lineno}"
    line, trace = "", cause.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = f" line {trace.tb_lineno}"
        trace = trace.tb_next
    return line


def _did_you_mean(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}" if near else ""
