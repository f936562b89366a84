"""How a rollout proceeds where nobody says: as the endpoint of its alias sets."""

from __future__ import annotations

import contextlib

from eagleray import errors
from eagleray.state import documents, keys
from eagleray.state.rollouts import Plan
from eagleray.storage import Storage


class Defaults(documents.Replaceable, frozen=True):
    """The plan that an endpoint sets for rollouts of its alias."""

    KIND = "rollout-plan"

    plan: Plan


def read(store: Storage, name: str, alias: str) -> Plan:
    """The plan of an alias; the usual one where no endpoint has set any.

    Raises:
        CorruptObjectError, NewerFormatError: the document cannot be read.
    """
    found = Defaults.find(store, _key(name, alias))
    return found.plan if found is not None else Plan()


def publish(store: Storage, name: str, alias: str, plan: Plan) -> None:
    """Set the plan of an alias; of replicas that start together, one writes it."""
    key = _key(name, alias)
    data, etag = b"", None
    with contextlib.suppress(errors.ObjectNotFoundError):
        data, etag = store.get_tagged(key)
    made = Defaults(plan=plan, etag=etag)
    if data == made.encode():
        return
    try:
        made.replace(store, key)
    except documents.MISSED:
        return  # another replica was faster


def _key(name: str, alias: str) -> str:
    return keys.PLAN.format(name=name, alias=alias)
