"""An experiment file: checked, split, and run on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eagleray import display, spec
from eagleray.api.checks import Check, examine
from eagleray.errors import SpecError
from eagleray.spec import document

if TYPE_CHECKING:
    from rich.console import Console

    from eagleray.api.audits import Audit
    from eagleray.api.results import Result
    from eagleray.client.runs import Cluster


@dataclass(frozen=True, repr=False)
class Experiment:
    """A valid experiment file (docs/experiment.md).

    Attributes:
        spec: the file, checked.
        overrides: YAML by dotted key, which wins over the file.
    """

    spec: spec.Experiment
    overrides: Mapping[str, str]

    @property
    def name(self) -> str:
        """Name of the experiment and of its model."""
        return self.spec.name

    @property
    def storage(self) -> str:
        """URI of the storage that keeps its searches and models."""
        return self.spec.storage

    def check(self) -> Check:
        """Read the data, infer its types, and try the user's own code on one batch.

        Raises:
            SpecError: all problems of the file and its data, a line each.
        """
        check = examine(self.spec.path, self.overrides)
        if check.problems:
            raise SpecError(*check.problems)
        return check

    def audit(self) -> Audit:
        """Look for what is wrong with the data: leaks, duplicates, wrong labels and more.

        Raises:
            DataError: the data cannot be read, or nothing can be learned from them.
        """
        from eagleray.api import audits

        return audits.examine(self.spec)

    def run(
        self,
        address: str | None = None,
        *,
        cluster: Cluster | None = None,
        console: Console | None = None,
    ) -> Result:
        """Search, evaluate the winner on the test part, and register it.

        Called again with the same file and data, it resumes an interrupted search, or returns the
        result.

        Args:
            address: a Ray cluster to join, `host:6379`, or the dashboard of one to submit to,
                `http://host:8265`; by default Ray starts on this machine.
            cluster: another cluster to submit to, see `eagleray.api.clusters.cluster`.
            console: where progress is printed; stdout by default.

        Raises:
            EagleRayError: see `eagleray.errors`; nothing is half-registered.
        """
        from rich import console as rich

        from eagleray.api import clusters, runs

        out = console or rich.Console(highlight=False, markup=False)
        target = cluster or clusters.cluster(address)
        if target is None:
            return runs.run_local(self.spec, out, address)
        result = runs.submit(self.spec, target, out)
        assert result is not None  # it is followed
        return result

    def split(self, folder: str | Path) -> dict[str, Any]:
        """Write the rows of each part into a new folder; return the content of its `split.json`."""
        from ray_jobs.data import parts

        return parts.export(self.spec, Path(folder))

    def __repr__(self) -> str:
        return f"<Experiment {self.name} of {self.spec.path}>"

    def _repr_html_(self) -> str:
        trials, size = self.spec.trials, len(self.spec.space)
        sentence = f"{self.name}: {trials} trials over {size} distributions, kept in {self.storage}"
        rows = [(key, drawn.kind, str(drawn.arguments)) for key, drawn in self.spec.space.items()]
        return display.page(sentence, display.table(("key", "distribution", "values"), rows))


def load(file: str | Path, overrides: Mapping[str, object] | None = None) -> Experiment:
    """Read an experiment file.

    Args:
        file: the YAML file.
        overrides: values by dotted key, which win over the file: `{"tune.trials": 4}`.

    Raises:
        SpecError: every problem of the file, each as
            `file:line: dotted.key: law, but got value; did you mean …`.
    """
    return read(file, {key: document.write(value) for key, value in (overrides or {}).items()})


def read(file: str | Path, overrides: Mapping[str, str]) -> Experiment:
    """Read an experiment file as `load` does; `overrides` are YAML by dotted key."""
    return Experiment(spec.load(file, overrides), overrides)
