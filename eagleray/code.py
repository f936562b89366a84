"""The user's own Python, `module:function`: kept as source, which travels with the model.

The module is a file beside the experiment file (`models.net:build` is `models/net.py`), or
installed. What it imports must be installed wherever it runs.
"""

import contextlib
import hashlib
import importlib.util
import linecache
import platform
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eagleray import errors, messages, names

PATTERN = r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*$"  # matches `module:function`
FOLDER = "code/"
"""Where sources are in a bundle, and nothing else."""
_LONGEST = 400  # most characters that an error quotes of an exception's message


@dataclass(frozen=True)
class Code:
    """A function of the user: `module:function`, and the source of the whole module."""

    name: str
    source: str

    @property
    def module(self) -> str:
        return self.name.partition(":")[0]

    @property
    def path(self) -> str:
        """The source's path in a bundle."""
        return f"{FOLDER}{self.module}.py"

    @property
    def file(self) -> str:
        """The module's path in the experiment file's folder."""
        return f"{self.module.replace('.', '/')}.py"

    @property
    def filename(self) -> str:
        """The file name of this source's frames in a traceback."""
        return f"<{self.module} {self.sha256[:8]}>"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.source.encode()).hexdigest()

    def load(self) -> Callable[..., Any]:
        """Import the function, its module once per process; CodeError where that fails."""
        module, name = _module(self), self.name.partition(":")[2]
        function: Callable[..., Any] | None = getattr(module, name, None)
        if function is None:
            near = names.near(name, [key for key, one in vars(module).items() if callable(one)])
            raise errors.CodeError(
                f"{self.name}: the function must be in its module, but {self.module} has no"
                f" {name!r}{near}"
            )
        if not callable(function):
            kind = type(function).__name__
            raise errors.CodeError(f"{self.name}: a function is needed, but got a value of {kind}")
        return function


def is_name(text: str) -> bool:
    """Whether text has the form `module:function`."""
    return re.fullmatch(PATTERN, text) is not None


def read(name: str, folder: Path) -> Code:
    """The user's function, from `folder` or installed; CodeError where it cannot be loaded."""
    if not is_name(name):
        raise errors.CodeError(f"code is named module:function, but got {name!r}")
    code = Code(name, "")
    path = folder / code.file
    try:
        source = (path if path.is_file() else _installed(code.module, folder)).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise errors.CodeError(f"{name}: {path} must be Python in UTF-8, but {cause}") from cause
    code = Code(name, source)
    code.load()
    return code


@contextlib.contextmanager
def guard(law: str, *own: Code | None) -> Iterator[None]:
    """Turn what the user's code raises in the block into a CodeError with its file and line.

    `law` is what the code must do, such as `must give a loss`. Without `own`, nothing is caught.
    A module that is not installed here is a MissingModuleError.
    Only KeyboardInterrupt passes: `sys.exit()` in a model ends neither a search nor a replica.
    """
    try:
        yield
    except (errors.EagleRayError, KeyboardInterrupt):
        raise
    except BaseException as cause:
        involved = [one for one in own if one is not None]
        if not involved:
            raise
        blamed = _blamed(law, involved, cause)
        if isinstance(cause, ModuleNotFoundError):
            place = f"{platform.node()}, and wherever else it trains or serves"
            text = f"{blamed}; install its package on {place} (docs/code.md)"
            raise errors.MissingModuleError(text, cause.name or "") from cause
        raise errors.CodeError(blamed) from cause


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
            f" is no {module.replace('.', '/')}.py in {folder}{names.near(module, beside)}"
        )
    return Path(spec.origin)


def _module(code: Code) -> types.ModuleType:
    """The source as a module; its name holds the source's hash, so no two sources share one."""
    private = f"eagleray_code_{code.sha256[:16]}_{code.module.replace('.', '_')}"
    if private in sys.modules:
        return sys.modules[private]
    module = types.ModuleType(private)
    module.__package__ = code.module.rpartition(".")[0] or None
    lines = code.source.splitlines(keepends=True)
    linecache.cache[code.filename] = (len(code.source), None, lines, code.filename)
    sys.modules[private] = module
    try:
        with guard("the module must import", code):
            exec(compile(code.source, code.filename, "exec"), vars(module))  # noqa: S102 (the user asks for it)
    except BaseException:
        del sys.modules[private]
        raise
    return module


def _blamed(law: str, own: list[Code], cause: BaseException) -> str:
    files = {code.filename: code for code in own}
    places = [(name, line) for name, line in _frames(cause) if name in files]
    code = files[places[-1][0]] if places else own[0]
    place = f"{code.file}:{places[-1][1]}: " if places else ""
    kind, text = type(cause).__name__, messages.shortened(" ".join(str(cause).split()), _LONGEST)
    return f"{place}{code.name}: {law}, but raised {kind}{f': {text}' if text else ''}"


def _frames(cause: BaseException) -> Iterator[tuple[str, int]]:
    """File and line of each frame, outermost first."""
    for frame, line in traceback.walk_tb(cause.__traceback__):
        yield frame.f_code.co_filename, line
    if isinstance(cause, SyntaxError) and cause.filename and cause.lineno:
        yield cause.filename, cause.lineno
