"""`eagleray rollout …`: move an alias to another version in steps, by evidence."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated, Any

import pydantic
import typer

from eagleray.api import models, rollouts
from eagleray.cli.options import EMBEDDED, Json, Storage, group
from eagleray.cli.output import emit
from eagleray.errors import UserError
from eagleray.state.rollouts import Plan, Rollout

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

app = group("Move an alias to another version in steps, by evidence.")

Name = Annotated[str, typer.Argument(help="The model.")]
Alias = Annotated[str, typer.Option(help="The alias that moves.")]
Why = Annotated[str, typer.Option(help="The reason, for the log.")]
Candidate = Annotated[str, typer.Argument(help="The candidate: a number, an alias, or latest.")]
Steps = Annotated[
    str | None, typer.Option(help="Shares of the requests in percent, one after another.")
]
ONLY_COMPARE = "Only compare: answers go to no client."
Shadow = Annotated[int | None, typer.Option(min=1, max=100, metavar="PERCENT", help=ONLY_COMPARE)]
KEEP_SHARE = "A/B: keep this share until the deadline."
Split = Annotated[int | None, typer.Option(min=1, max=100, metavar="PERCENT", help=KEEP_SHARE)]
MEASURES = "A/B: what names the winner: label, errors, latency or outcome:CLASS."
Measure = Annotated[str | None, typer.Option(metavar="WHAT", help=MEASURES)]
Promote = Annotated[
    bool, typer.Option("--promote-winner", help="A/B: the alias moves if the candidate wins.")
]
Sticky = Annotated[str | None, typer.Option(metavar="HEADER", help="Same value, same version.")]
Objective = Annotated[float | None, typer.Option(help="Objective; else the champion's own p95.")]
AllowChange = Annotated[
    bool, typer.Option("--allow-schema-change", help="Allow a schema that breaks clients.")
]


@app.command()
def start(
    name: Name,
    version: Candidate,
    alias: Alias = "champion",
    steps: Steps = None,
    shadow: Shadow = None,
    split: Split = None,
    measure: Measure = None,
    promote_winner: Promote = False,
    sticky: Sticky = None,
    bake_s: Annotated[float | None, typer.Option(help="Least seconds of a step.")] = None,
    least: Annotated[int | None, typer.Option(help="Least requests of a step.")] = None,
    deadline_s: Annotated[float | None, typer.Option(help="Then it ends.")] = None,
    p95_ms: Objective = None,
    allow_schema_change: AllowChange = False,
    why: Why = "",
    storage: Storage = EMBEDDED,
    as_json: Json = False,
) -> None:
    """Give a version a share of the traffic, and more as long as nothing speaks against it.

    What is not given is as the endpoint sets it, else 5, 25, 50 % for at least 60 s and 200
    requests each, within 3600 s.
    """
    if shadow is not None and split is not None:
        raise UserError("--shadow and --split: at most one may be given, but got both")
    known = models.models(storage)[name]
    given = {
        **_shares(steps, shadow, split),
        "bake_s": bake_s,
        "least": least,
        "deadline_s": deadline_s,
        "sticky": sticky,
        "p95_ms": p95_ms,
        "measure": measure,
        "promote_winner": promote_winner or None,
    }
    plan = _merged(known.rollout_plan(alias), given)
    begun = known.roll_out(
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


def _shares(steps: str | None, shadow: int | None, split: int | None) -> dict[str, Any]:
    """Mode and steps of the options; neither where none of them is given."""
    for mode, share in (("shadow", shadow), ("split", split)):
        if share is not None:
            return {"mode": mode, "steps": (share / 100,)}
    if steps is None:
        return {}
    law = "--steps: must be rising percents such as 5,25,50"
    try:
        percents = [float(step) for step in steps.split(",")]
    except ValueError as cause:
        raise UserError(f"{law}, but got {steps!r}") from cause
    if not all(low < high <= 100 for low, high in itertools.pairwise([0, *percents])):
        raise UserError(f"{law}, but got {steps!r}")
    return {"mode": "canary", "steps": tuple(percent / 100 for percent in percents)}


def _merged(plan: Plan, given: dict[str, Any]) -> Plan:
    """The plan with what is given; UserError names the option that is wrong."""
    chosen = {key: value for key, value in given.items() if value is not None}
    try:
        return Plan.model_validate(plan.model_dump() | chosen)
    except pydantic.ValidationError as cause:
        first = cause.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise UserError(f"--{option}: {_law(first)}") from cause


def _law(details: ErrorDetails) -> str:
    """The law that a value breaks; pydantic's own laws do not name it."""
    own = details["msg"].removeprefix("Value error, ")
    if own != details["msg"]:
        return own
    law = own.removeprefix("Input ").replace("should", "must", 1)
    return f"{law}, but got {details['input']!r}"


def _show(rollout: Rollout, as_json: bool) -> None:
    if not as_json:
        print(rollout.headline)
        if rollout.open:
            print(f"now: {rollouts.evidence(rollout)}")
    table = [(one.at, one.action, f"{one.share:.0%}", one.why) for one in rollout.decisions]
    emit(rollout, as_json, table=[("AT", "WHAT", "SHARE", "WHY"), *table])
