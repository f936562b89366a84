"""Rollouts of a model: begin, steer and follow them."""

import re

from eagleray import errors, names
from eagleray.state import plans, rollouts
from eagleray.state.aliases import CHAMPION
from eagleray.state.models import Registry, Version
from eagleray.state.rollouts import Plan, Rollout, Rollouts

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2


def evidence(rollout: Rollout) -> str:
    """What was counted of both versions when the rollout was last decided on, and what it says."""
    from serving import rollout as decisions

    return f"{decisions.summary(rollout)}; {decisions.doubt(rollout)}"


class Steered:
    """The part of a model by which its rollouts are begun and steered."""

    def __init__(self, name: str, registry: Registry, rollouts: Rollouts) -> None:
        self.name = name
        self._registry, self._rollouts = registry, rollouts

    def roll_out(
        self,
        reference: str | int,
        alias: str = CHAMPION,
        *,
        plan: Plan | None = None,
        allow_schema_change: bool = False,
        why: str = "",
    ) -> Rollout:
        """Begin to move an alias to a version in steps; endpoints go on with it by evidence.

        Args:
            reference: the candidate.
            alias: which alias.
            plan: how to proceed; else as `rollout_plan` says.
            allow_schema_change: also to a version that breaks clients of the one before.
            why: the reason, for the log.

        Raises:
            NotFoundError: there is no such version.
            UserError: the version breaks clients of the one before, or does not have the outcome
                that the plan measures; the sticky header can be no header.
            ConflictError: the alias points nowhere, to this version, or is in a rollout.
        """
        from eagleray import compatibility

        version = self._registry.resolve(self.name, str(reference))
        plan = plan or self.rollout_plan(alias)
        if plan.sticky is not None and not _HEADER.fullmatch(plan.sticky):
            law = "sticky: must be the name of a header, such as x-user-id"
            raise errors.UserError(f"{law}, but got {plan.sticky!r}")
        self._check_outcome(version, plan)
        if not allow_schema_change and alias in self._registry.aliases(self.name).values:
            before = self._registry.resolve(self.name, alias)
            compatibility.check(self._registry, alias, before, version)
        return self._rollouts.start(self.name, version.number, plan=plan, alias=alias, why=why)

    def rollout_plan(self, alias: str = CHAMPION) -> Plan:
        """How rollouts of an alias proceed: as its endpoint sets, else with 5, 25 and 50 %."""
        return plans.read(self._rollouts.store, self.name, alias)

    def rollout(self, alias: str = CHAMPION) -> Rollout:
        """The rollout that an alias is in, else its last one; NotFoundError without any."""
        return self._rollouts.current(self.name, alias)

    def pause(self, alias: str = CHAMPION, *, why: str = "") -> Rollout:
        """Hold a rollout at its step; ConflictError if it has ended."""
        return self._rollouts.pause(self.rollout(alias), why=why)

    def resume(self, alias: str = CHAMPION, *, why: str = "") -> Rollout:
        """Let a rollout go on that was paused; ConflictError if it has ended."""
        return self._rollouts.resume(self.rollout(alias), why=why)

    def abort(self, alias: str = CHAMPION, *, why: str = "") -> Rollout:
        """Give all traffic back to the version of the alias, also if its rollout is damaged.

        Raises:
            ConflictError: it has ended.
            CorruptObjectError: it is damaged; the traffic was given back.
        """
        try:
            return self._rollouts.abort(self.rollout(alias), why=why)
        except errors.CorruptObjectError as cause:
            self._rollouts.drop(self.name, alias, why=why or str(cause))
            raise

    def _check_outcome(self, version: Version, plan: Plan) -> None:
        """Raise UserError for a measure of an outcome that the version never predicts."""
        from eagleray import compatibility
        from eagleray.learn import tasks

        measure = plan.measure or ""
        known = compatibility.schema(self._registry, version)
        if not measure.startswith(rollouts.OUTCOME) or known is None:
            return
        outcome, possible = measure.removeprefix(rollouts.OUTCOME), tasks.of(known.target).outcomes
        if outcome not in possible:
            near = names.near(outcome, possible) or f"; they are {', '.join(possible[:20])}"
            law = f"measure: must be {rollouts.OUTCOME} and an outcome of version {version.number}"
            raise errors.UserError(f"{law}, but got {outcome!r}{near}")
