"""The layout of storage: templates of all keys but those of contents (`eagleray.storage.blobs`).

Names are DNS labels; other keys in these folders are foreign.
"""

import re
from collections.abc import Iterable

from eagleray import names

FOLDERS = ("models/", "runs/", "searches/", "looks/")
MODELS, RUNS, SEARCHES, _ = FOLDERS

SEARCH = SEARCHES + "{name}/{search}/"  # one search, see `searches`
LEASE = SEARCH + "lease.json"  # who drives it, see `leases`; beside it `lease.fence.json`
DEFINITION = SEARCH + "definition.json"  # what it is a search of
AUDIT = SEARCH + "audit.json"  # what the audit of the data found
TRIALS = SEARCH + "trials/"
TRIAL = TRIALS + "{number:05}.json"
STATES = SEARCH + "states/"
STATE = STATES + "{number:05}.json"  # the checkpoints of a trial, to continue from
VIEW = SEARCH + "view.json"  # what a screen shows
RESULT = SEARCH + "result.json"  # how it ended
CURVES = SEARCH + "curves.parquet"  # every trial's metrics by epoch, when it has ended
CURVE_BEGUN = SEARCH + "learning_curve.begun"  # while a driver trains it; empty
LAYERS = SEARCH + "layers/{number:05}.parquet"  # what was watched of a trial, see `watches`

RUN = RUNS + "{name}/{id}.json"  # a package that was sent, see `runs`
RUN_SEARCH = RUNS + "{name}/{id}/search.json"
RUN_RESULT = RUNS + "{name}/{id}/result.json"
RUN_BATCH = RUNS + "{name}/{id}/batch.json"  # what was sent is predictions of files, see `batches`

VERSIONS = MODELS + "{name}/versions/"
VERSION = VERSIONS + "{number}.json"  # written once
ALIASES = MODELS + "{name}/aliases.json"  # where aliases point, and the last move
PLAN = MODELS + "{name}/plans/{alias}.json"  # how rollouts of an alias proceed, see `plans`
EVENTS = MODELS + "{name}/events/"  # the moves before
EVENT = EVENTS + "{id}.json"
ROLLOUTS = MODELS + "{name}/rollouts/"
ROLLOUT = ROLLOUTS + "{id}/rollout.json"  # see `rollouts`
ROLLOUT_LEASE = ROLLOUTS + "{id}/lease.json"  # who decides on it
EVIDENCE = ROLLOUTS + "{id}/evidence/"
EVIDENCE_OF = EVIDENCE + "{replica}.json"  # what one replica has counted

LOOKS = "looks/{part}.json"  # who was judged on a test part, see `evaluations`

CAPTURES = "captures/{model}/"
CAPTURE = CAPTURES + "date={date}/{replica}-{number:05}.parquet"  # sampled requests and answers

BATCH_PLAN = "_plan.json"  # below an output of predictions: what is predicted, see `batches`
BATCH_LEASE = "_lease.json"  # who predicts it, see `leases`
BATCH_PART = "part-{file:05}-{number:05}.{format}"  # some rows of a file of the input
BATCH_RECORDS = "_parts/"
BATCH_RECORD = BATCH_RECORDS + "{file:05}-{number:05}.json"  # of a part that is finished
BATCH_RESULT = "_SUCCESS"  # written last

_SEARCH = re.compile(r"searches/([^/]+)/([^/]+)/.+")
_VERSION = re.compile(r"models/([^/]+)/versions/([1-9][0-9]*)\.json")


def fence(lease: str) -> str:
    """The key of a lease's highest fence, beside it."""
    return f"{lease.removesuffix('.json')}.fence.json"


def searches(keys: Iterable[str]) -> list[tuple[str, str]]:
    """Name and id of each search among these keys; foreign keys are skipped."""
    return sorted({(found[1], found[2]) for key in keys if (found := _SEARCH.fullmatch(key))})


def versions(keys: Iterable[str]) -> list[tuple[str, int]]:
    """Model and number of each version among these keys; foreign keys are skipped."""
    found = {(one[1], int(one[2])) for key in keys if (one := _VERSION.fullmatch(key))}
    return sorted(one for one in found if names.is_label(one[0]))
