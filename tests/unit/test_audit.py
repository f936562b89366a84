"""The audit as a whole: in a run, as a command, and with odd tables."""

import contextlib
import dataclasses
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sklearn import datasets

import eagleray
from eagleray import audit, cli, errors, plugins, spec
from eagleray.audit import estimates
from eagleray.findings import Finding
from eagleray.state import searches
from ray_jobs import audited, search
from tests import audits


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes"])
def test_clean_data_sets_have_no_error(tmp_path: Path, name: str) -> None:
    frame = getattr(datasets, f"load_{name}")(as_frame=True).frame.rename(columns={"target": "y"})
    found = audit.examine(audits.table(tmp_path, frame))
    assert [one for one in found if one.severity == "error"] == []


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(audits.healthy(12).assign(y=["no", "yes"] * 6), id="few rows"),
        pytest.param(audits.healthy(60).assign(words=None), id="empty column"),
        pytest.param(
            audits.healthy(60).assign(words=[f"a text of row {n}" for n in range(60)]), id="text"
        ),
        pytest.param(audits.healthy(60).assign(huge=[1e300, -1e300] * 30), id="huge numbers"),
        pytest.param(audits.healthy(60).assign(y=range(60)), id="a regression"),
        pytest.param(
            audits.healthy(600).assign(y=[f"c{n % 30}" for n in range(600)]), id="many classes"
        ),
        pytest.param(
            audits.healthy(60).assign(picture=[np.full((2, 2), n / 60) for n in range(60)]),
            id="pictures",
        ),
    ],
)
def test_odd_tables_are_audited_too(tmp_path: Path, frame: pd.DataFrame) -> None:
    for one in audit.examine(audits.table(tmp_path, frame)):
        assert one.check in audit.REGISTRY
        assert all(np.isfinite(value) for value in one.numbers.values())


def test_models_are_made_for_50_classes_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits, fit = list[int](), estimates.out_of_fold

    def counted(
        traits_BF: np.ndarray, truth_B: np.ndarray, classes: int, fold_B: np.ndarray
    ) -> np.ndarray:
        fits.append(classes)
        return fit(traits_BF, truth_B, classes, fold_B)

    monkeypatch.setattr(estimates, "out_of_fold", counted)
    for classes in (50, 51):
        frame = audits.healthy(510).assign(y=[f"c{n % classes}" for n in range(510)])
        audit.examine(audits.table(tmp_path, frame))
    assert set(fits) == {50}


def test_sample_rows_are_cut_and_numbered_as_in_the_source(tmp_path: Path) -> None:
    frame = audits.healthy().assign(note=[f"{n} {'long ' * 100}" for n in range(audits.ROWS)])
    frame.loc[0, "y"] = None  # left out: numbers of the others stay
    (first, *_) = audits.table(tmp_path, frame).shown(np.array([0]))
    assert first.startswith("row 2: y ")
    assert len(first) <= 100


def test_no_line_is_given_that_the_file_cannot_have(tmp_path: Path) -> None:
    frame = pd.concat([audits.healthy()] * 2, ignore_index=True)
    streamed = dataclasses.replace(audits.table(tmp_path, frame), total=10**6)
    (repeated,) = audit.REGISTRY["duplicate rows"](streamed)
    assert repeated.fix == ""
    grouped = dataclasses.replace(audits.table(tmp_path, audits.patients()), total=10**6)
    (torn,) = audit.REGISTRY["groups across parts"](grouped)
    assert torn.fix == ""
    cancer = datasets.load_breast_cancer(as_frame=True).frame.rename(columns={"target": "y"})
    noisy_labels = cancer.assign(y=audits.changed(cancer.y.map({0: "c0", 1: "c1"}), 0.02)[0])
    (smooth,) = audits.flagged(tmp_path, "label noise", noisy_labels)
    (own,) = audits.flagged(tmp_path, "label noise", noisy_labels, train={"loss": "focal"})
    assert (smooth.fix, own.fix) == ("train: {label_smoothing: 0.05}", "")


def test_a_sample_of_streamed_rows_is_called_so() -> None:
    document = searches.Audit(rows=10, total=1000, findings=[Finding("warn", "x: is odd")])
    assert document.sentence() == "1 warning in 10 rows, a sample of 1,000 streamed ones"


def test_a_check_of_ones_own_is_run_with_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.setattr(audit, "REGISTRY", plugins.Registry("check of the audit"))
    exec(code, {})
    (found,) = audit.examine(audits.table(tmp_path, audits.healthy(60).assign(Unnamed="x")))
    assert (found.check, found.message) == ("unnamed", "Unnamed: has no name")


def test_a_package_may_import_the_audit_while_the_experiment_file_is_being_defined() -> None:
    line = "import sys, eagleray.audit; sys.exit('eagleray.spec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", line], check=False).returncode == 0


def test_every_check_stands_in_the_table_of_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    assert re.findall(r"^\| ([a-z -]+) \| .* \| (?:error|warn|note)", page, re.MULTILINE) == list(
        audit.REGISTRY
    )


def run_stage(searched: search.Search) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        audited.stage(searched, Console(file=out, width=400))
    return out.getvalue()


def experiment(folder: Path, frame: pd.DataFrame, fail_on: str = "never") -> Path:
    frame.to_csv(folder / "rows.csv", index=False)
    file = folder / "staged.yaml"
    file.write_text(
        "name: staged\ndata: {source: rows.csv, target: y}\n"
        f"audit: {{fail_on: {fail_on}}}\nstorage: {folder.as_uri()}\n"
    )
    return file


def test_a_run_keeps_its_audit_and_prints_no_row(tmp_path: Path) -> None:
    searched = search.Search(spec.load(experiment(tmp_path, audits.copied(audits.healthy()))))
    printed = run_stage(searched)
    kept = searched.records.audit()
    assert kept is not None
    assert kept.findings[0].check == "target copy"
    assert "  error: target copy: decided: is a copy of the target" in printed
    assert "fix: data: {drop: [decided]}" in printed
    assert not any(line in printed for one in kept.findings for line in one.evidence)
    assert run_stage(searched) == printed


@pytest.mark.parametrize(
    ("fail_on", "faulty"), [("error", audits.copied), ("warn", lambda one: one)]
)
def test_a_finding_of_the_severity_that_is_named_ends_a_run_before_any_trial(
    tmp_path: Path, fail_on: str, faulty: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    frame = faulty(audits.healthy().assign(k="same"))
    searched = search.Search(spec.load(experiment(tmp_path, frame, fail_on)))
    with pytest.raises(errors.DataError) as refused:
        run_stage(searched)
    assert refused.value.problems[0].startswith(f"audit.fail_on: {fail_on}, and ")
    assert searched.records.trials() == []


def test_fail_on_makes_no_other_search(tmp_path: Path) -> None:
    ids = {
        search.Search(spec.load(experiment(tmp_path, audits.healthy(60), one))).id
        for one in ("never", "error")
    }
    assert len(ids) == 1


def test_the_command_prints_the_findings_and_ends_with_1_where_the_file_asks_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(experiment(tmp_path, audits.copied(audits.healthy())))
    assert cli.main(["audit", file]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("staged: 1 error in 800 rows\n\nERROR   target copy: decided: is ")
    assert "        fix: data: {drop: [decided]}\n" in printed
    assert cli.main(["audit", file, "--json", "--set", "audit.fail_on=error"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["errors"], told["findings"][0]["column"]) == (1, "decided")


def test_bad_files_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = experiment(tmp_path, audits.healthy(60), "sometimes")
    assert cli.main(["audit", str(file)]) == 2
    law = 'audit.fail_on: must be one of error, warn, never, but got "sometimes"'
    assert law in capsys.readouterr().err
    assert cli.main(["audit", str(tmp_path / "absent.yaml")]) == 2


def test_an_audit_shows_itself_in_a_notebook(tmp_path: Path) -> None:
    found = eagleray.load(experiment(tmp_path, audits.copied(audits.healthy()))).audit()
    shown = found._repr_html_()
    assert [one.check for one in found.errors] == ["target copy"]
    assert "<td" in shown
    assert "decided: is a copy of the target" in shown
    assert repr(found) == "<Audit staged: 1 error in 800 rows>"
