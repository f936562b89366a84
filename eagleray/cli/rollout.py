"""`eagleray rollout …`: move an alias to another version in steps, by evidence."""

from typing import Annotated

import pydantic
import typer

from eagleray.api import models
from eagleray.cli.options import EMBEDDED, Json, Storage, group
from eagleray.cli.output import emit
from eagleray.errors import UserError
from eagleray.state.rollouts import Plan, Rollout

app = group("Move an alias to another version in steps, by evidence.")

Name = Annotated[str, typer.Argument(help="The model.")]
Alias = Annotated[str, typer.Option(help="The alias that moves.")]
Why = Annotated[str, typer.Option(help="The reason, for the log.")]
DEFAULT = Plan()


@app.command()
def start(
    name: Name,
    version: Annotated[str, typer.Argument(help="The candidate: a number, an alias, or latest.")],
    alias: Alias = "champion",
    steps: Annotated[
        str, typer.Option(help="Shares of the requests in percent, one after another.")
    ] = ",".join(f"{share:.0%}"[:-1] for share in DEFAULT.steps),
    shadow: Annotated[
        int | None,
        typer.Option(metavar="PERCENT", help="Only compare: answers go to no client."),
    ] = None,
    split: Annotated[
        int | None,
        typer.Option(metavar="PERCENT", help="A/B: keep this share until the deadline."),
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="A/B: what names the winner: label, errors, latency or outcome:CLASS.",
        ),
    ] = None,
    promote_winner: Annotated[
        bool, typer.Option("--promote-winner", help="A/B: the alias moves if the candidate wins.")
    ] = False,
    sticky: Annotated[
        str | None, typer.Option(metavar="HEADER", help="Same value, same version.")
    ] = None,
    bake_s: Annotated[float, typer.Option(help="Least seconds of a step.")] = DEFAULT.bake_s,
    least: Annotated[int, typer.Option(help="Least requests of a step.")] = DEFAULT.least,
    deadline_s: Annotated[float, typer.Option(help="Then it ends.")] = DEFAULT.deadline_s,
    p95_ms: Annotated[
        float | None, typer.Option(help="Objective; else the champion's own p95.")
    ] = None,
    allow_schema_change: Annotated[
        bool, typer.Option("--allow-schema-change", help="Allow a schema that breaks clients.")
    ] = False,
    why: Why = "",
    storage: Storage = EMBEDDED,
    as_json: Json = False,
) -> None:
    """Give a version a share of the traffic, and more as long as nothing speaks against it."""
    if shadow is not None and split is not None:
        raise UserError("--shadow and --split: at most one may be given, but got both")
    mode = "shadow" if shadow is not None else "split" if split is not None else "canary"
    share = shadow if shadow is not None else split
    try:
        plan = Plan(
            mode=mode,
            steps=_shares(steps) if share is None else (share / 100,),
            bake_s=bake_s,
            least=least,
            deadline_s=deadline_s,
            sticky=sticky,
            p95_ms=p95_ms,
            measure=measure,
            promote_winner=promote_winner,
        )
    except pydantic.ValidationError as cause:
        first = cause.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise UserError(f"--{option}: {first['msg']}") from cause
    begun = models.models(storage)[name].roll_out(
        version, alias, plan=plan, allow_schema_change=allow_schema_change, why=why
    )
    _show(begun, as_json)


@app.command()
def status(
    name: Name, alias: Alias = "champion", storage: Storage = EMBEDDED, as_json: Json = False
) -> None:
    """Show the rollout that is under way, or else the last one, with every decision."""
    _show(models.models(storage)[name].rollout(alias), as_json)


def _steering(verb: str, text: str) -> None:
    """Add the command of a method of `Model` that steers a rollout."""

    @app.command(verb, help=text)
    def steer(
        name: Name,
        alias: Alias = "champion",
        why: Why = "",
        storage: Storage = EMBEDDED,
        as_json: Json = False,
    ) -> None:
        act = getattr(models.models(storage)[name], verb)
        _show(act(alias, why=why), as_json)


_steering("pause", "Hold the rollout at its step; evidence against the candidate still stops it.")
_steering("resume", "Let a rollout go on that was paused.")
_steering("abort", "End the rollout: the champion answers all requests again.")


def _shares(steps: str) -> tuple[float, ...]:
    try:
        return tuple(float(step) / 100 for step in steps.split(","))
    except ValueError as cause:
        law = "--steps: must be percents such as 5,25,50"
        raise UserError(f"{law}, but got {steps!r}") from cause


def _show(rollout: Rollout, as_json: bool) -> None:
    if not as_json:
        print(rollout.headline)
    table = [(one.at, one.action, f"{one.share:.0%}", one.why) for one in rollout.decisions]
    emit(rollout, as_json, table=[("AT", "WHAT", "SHARE", "WHY"), *table])
