"""What a report is made of: a version, how it was judged, and the trials of its search."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

from eagleray import errors, names
from eagleray.findings import Finding
from eagleray.reports import findings, searched
from eagleray.state import evaluations, searches, watches
from eagleray.state.evaluations import Evaluation
from eagleray.state.models import Registry, Version
from eagleray.storage import Storage


@dataclass(frozen=True)
class Contents:
    """What is on record; the version is None while a search has none, the trials are ranked."""

    name: str
    search: str
    version: Version | None
    evaluation: Evaluation | None
    aliases: tuple[str, ...]
    trials: Sequence[searches.Record]
    view: searches.View | None = None
    layers: Sequence[watches.Row] = ()  # what was watched of the winner
    audit: searches.Audit | None = None  # of the data, before the first trial

    @property
    def title(self) -> str:
        if self.version is None:
            return f"{self.name}, search {self.search}"
        return f"{self.name} version {self.version.number}"

    @property
    def metric(self) -> str:
        """What selects: of the version, else of the search; empty where neither says."""
        if self.evaluation is not None:
            return self.evaluation.metric
        known = self.version.manifest.get("metric") if self.version else None
        return known or (self.view.metric if self.view else "")

    @property
    def sentence(self) -> str:
        """The whole in one sentence."""
        if self.evaluation is not None:
            return findings.sentence(self.title, self.evaluation)
        if self.version is not None:
            return f"{self.title} has no evaluation: {_UNJUDGED}."
        score = self.trials[0].score if self.trials else None
        best = (
            "" if score is None else f"; the best {self.metric} on the validation part: {score:.4f}"
        )
        ended = sum(not one.unfinished for one in self.trials)
        return (
            f"Search {self.search} of {self.name} has no winner yet: {ended} of"
            f" {len(self.trials)} trials that began have ended{best}."
        )

    @property
    def findings(self) -> list[Finding]:
        """Findings of the evaluation; problems come first."""
        return list(findings.of(self.evaluation)) if self.evaluation else []

    @cached_property
    def worth(self) -> searched.Worth:
        """What each searched key is worth."""
        return searched.worth(self.trials)

    def json(self) -> dict[str, Any]:
        """All of it as values for JSON."""
        version = self.version
        return {
            "name": self.name,
            "version": version.number if version else None,
            "created": version.created if version else None,
            "aliases": list(self.aliases),
            "search": self.search,
            "sentence": self.sentence,
            "findings": [vars(one) for one in self.findings],
            "evaluation": self.evaluation.model_dump(mode="json") if self.evaluation else None,
            "manifest": version.manifest if version else None,
            "trials": [
                one.model_dump(mode="json", exclude={"weights", "parameters", "costs", "evidence"})
                for one in self.trials
            ],
            "worth": vars(self.worth),
            "layers": [one._asdict() for one in self.layers],
            "audit": self.audit.summary() if self.audit else None,
        }


_SEARCH = re.compile(r"[0-9a-f]{12}")
_UNJUDGED = "it was made elsewhere, or registered by a release before this one"


def of(store: Storage, what: str) -> Contents:
    """What is on record of `NAME`, `NAME/VERSION` or `NAME/SEARCH`, or of a search's id alone.

    A version is a number, an alias or `latest`, the default; of a model without any it is the
    search that was under way last.

    Raises:
        UserError: it has another form.
        NotFoundError: there is no such model, version or search.
    """
    name, slash, reference = what.partition("/")
    if not name or (slash and not reference) or "/" in reference:
        law = "report: must be NAME, NAME/VERSION, NAME/SEARCH or SEARCH"
        raise errors.UserError(f"{law}, but got {what!r}")
    registry = Registry(store)
    if not names.is_label(name):
        _refuse(store, registry, what)
    if _SEARCH.fullmatch(reference or name):
        for one in searches.all_of(store, name if reference else None):
            if one.search_id == (reference or name):
                return _of_search(store, one)
    if registry.numbers(name):
        return _of_version(store, registry.resolve(name, reference or "latest"))
    begun = [] if reference else searches.all_of(store, name)
    if not begun:
        _refuse(store, registry, what)
    return _of_search(store, max(begun, key=_written))


def _written(records: searches.Records) -> float:
    """When a search last said how far it is, in seconds since 1970."""
    view = records.view()
    return view.at if view else 0.0


def _refuse(store: Storage, registry: Registry, what: str) -> NoReturn:
    """Raise NotFoundError, with what there is."""
    every = [*registry.models(), *(one.name for one in searches.all_of(store))]
    known, name = list(dict.fromkeys(every)), what.partition("/")[0]
    law = f"report: must be of a model or a search in {store.uri} ({', '.join(known) or 'none'})"
    raise errors.NotFoundError(f"{law}, but got {what!r}{names.near(name, known)}")


def _of_search(store: Storage, records: searches.Records) -> Contents:
    result = records.result()
    if result is not None:
        return _of_version(store, Registry(store).version(records.name, result.version))
    view = records.view()
    trials = _ranked(records.trials(), view.metric if view else "")
    audit = records.audit()
    return Contents(records.name, records.search_id, None, None, (), trials, view, audit=audit)


def _of_version(store: Storage, version: Version) -> Contents:
    registry, search = Registry(store), _search_of(version)
    evaluation = None
    if evaluations.FILE in version.files:
        data = registry.read(version, evaluations.FILE)
        where = f"{store.uri}: {version.name} version {version.number}, {evaluations.FILE}"
        evaluation = evaluations.decode(data, where)
    records = searches.Records(store, version.name, search) if search else None
    metric = version.manifest.get("metric") or ""
    winner = (version.manifest.get("lineage") or {}).get("trial")
    return Contents(
        name=version.name,
        search=search,
        version=version,
        evaluation=evaluation,
        aliases=tuple(
            alias
            for alias, number in registry.aliases(version.name).values.items()
            if number == version.number
        ),
        trials=_ranked(records.trials(), metric) if records else [],
        view=records.view() if records else None,
        layers=records.layers(winner) if records and winner else (),
        audit=records.audit() if records else None,
    )


def _search_of(version: Version) -> str:
    return str((version.manifest.get("lineage") or {}).get("search") or "")


def _ranked(trials: Sequence[searches.Record], metric: str) -> list[searches.Record]:
    """The best trial on the validation part first; those without a score last, by number.

    Of trials by folds, those of more folds come first.
    """
    from eagleray.learn import metrics

    sign = -1 if metric not in metrics.REGISTRY or metrics.REGISTRY[metric].mode == "max" else 1
    return sorted(
        trials,
        key=lambda one: (
            one.score is None,
            -one.best_epoch if one.folds > 1 else 0,
            sign * (one.score or 0.0),
            one.number,
        ),
    )


def differences(left: Contents, right: Contents) -> Iterator[tuple[str, Any, Any]]:
    """Yield each metric of two versions with both values; None where one lacks it."""
    ours = left.evaluation.values if left.evaluation else {}
    theirs = right.evaluation.values if right.evaluation else {}
    for name in dict.fromkeys([*ours, *theirs]):
        yield name, ours.get(name), theirs.get(name)


def verdict(left: Contents, right: Contents) -> str:
    """Which of two versions is better on the same rows, where one was judged beside the other."""
    for ours, theirs in ((left, right), (right, left)):
        known = ours.evaluation.champion if ours.evaluation else None
        if (
            known is not None
            and ours.evaluation is not None
            and theirs.version is not None
            and (ours.name, known.version) == (theirs.name, theirs.version.number)
        ):
            return f"{ours.title}: {findings.against(ours.evaluation, known)}."
    return (
        f"{left.title} and {right.title} were not judged on the same rows: each was champion of"
        " another time; the metrics below are each of its own test part."
    )
