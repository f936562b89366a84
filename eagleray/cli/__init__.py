"""The command line: `eagleray COMMAND …`.

Each command lives in a module that is imported when the command is called, so that `--help`
answers at once.
"""

import importlib
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from eagleray import __version__, names
from eagleray.errors import EagleRayError, ProblemsError, UserError


class Command(NamedTuple):
    """A command, or a group of commands: a function of a module, or its `app`."""

    module: str
    name: str
    help: str


COMMANDS = {
    "check": Command("eagleray.cli.check", "check", "Check an experiment file and its data."),
    "audit": Command("eagleray.cli.audit", "audit", "Say what is wrong with the data."),
    "schema": Command("eagleray.cli.check", "schema", "Print the JSON Schema of experiment files."),
    "split": Command("eagleray.cli.check", "split", "Write the parts of the data as files."),
    "run": Command("eagleray.cli.run", "run", "Search, evaluate the winner, and register it."),
    "runs": Command("eagleray.cli.runs", "app", "List, follow and stop runs."),
    "why": Command("eagleray.cli.why", "why", "Explain why a run or a model does not work."),
    "serve": Command("eagleray.cli.serve", "serve", "Serve a model on this machine."),
    "simulate": Command("eagleray.cli.simulate", "simulate", "Try autoscaling out on a load."),
    "deploy": Command("eagleray.cli.deploy", "deploy", "Put a model on Kubernetes, by the chart."),
    "predict": Command("eagleray.cli.predict", "predict", "Predict rows of a file."),
    "models": Command("eagleray.cli.models", "app", "List, compare, promote and fetch versions."),
    "report": Command("eagleray.cli.report", "report", "Write how good a version is as a page."),
    "compare": Command("eagleray.cli.report", "compare", "Set two versions side by side."),
    "rollout": Command("eagleray.cli.rollout", "app", "Move traffic to a version in steps."),
    "keys": Command("eagleray.cli.keys", "app", "Make API keys of an endpoint."),
    "storage": Command("eagleray.cli.storage", "app", "Remove contents that nothing refers to."),
    "doctor": Command("eagleray.cli.doctor", "doctor", "Check storage, machine and cluster."),
    "local": Command("eagleray.cli.local", "app", "The storage server on this machine."),
}


class Commands(TyperGroup):
    """Lists all commands, and imports the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            known, near = ", ".join(COMMANDS), names.near(cmd_name, COMMANDS)
            raise UserError(f"command: must be one of {known}, but got {cmd_name!r}{near}")
        module, name, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), name)
        if isinstance(command, typer.Typer):
            return typer.main.get_command(command)
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(cmd_name)(command)
        return typer.main.get_command(single)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in COMMANDS.items()])


app = typer.Typer(cls=Commands, add_completion=False, rich_markup_mode=None, no_args_is_help=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is 2 for the user's mistakes, 1 for ours, 130 for Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    verbose = "--verbose" in words
    rest = [word for word in words if word != "--verbose"]
    try:
        typer.main.get_command(app).main(rest, prog_name="eagleray")
    except SystemExit as end:  # typer ends so, also after a success
        return int(end.code or 0)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 (the one place where all errors end)
        if verbose:
            traceback.print_exc()
        return _report(error)
    return 0


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"eagleray {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the trace of errors.")] = False,
) -> None:
    """One experiment file to one autoscaled endpoint."""


def _report(error: Exception) -> int:
    """Print a line for an error, or one for each of its problems; return the exit code."""
    lines, code = [f"internal error: {type(error).__name__}: {error}; run with --verbose"], 1
    if isinstance(error, EagleRayError):
        lines, code = [str(error)], error.exit_code
    if isinstance(error, ProblemsError):
        lines = error.problems
    for line in lines:
        print(" ".join(line.splitlines()), file=sys.stderr)
    return code
