"""The report of a version or a search: sentence, findings, page, JSON, and what is refused."""

import json
import math
import re
from pathlib import Path

import pytest

import eagleray
from eagleray import cli, errors, storage
from eagleray.api import reports
from eagleray.findings import warned
from eagleray.reports import findings, flow
from eagleray.state import evaluations
from eagleray.state.evaluations import (
    Baseline,
    Comparison,
    Diagram,
    Estimate,
    Evaluation,
    Fit,
    Latency,
    LearningCurve,
    Line,
    Slice,
    Verdict,
)
from eagleray.state.models import Registry
from eagleray.state.watches import BINS, Row
from tests import bundles, judged


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with two versions of one model, a search under way, and a model made elsewhere."""
    folder = tmp_path_factory.mktemp("house")
    one = judged.searched(folder)
    judged.won(one, [judged.trial(one, 1, **{"train.lr": 1e-4})])
    two = judged.searched(folder, **{"train.seed": "1"})
    trials = [judged.trial(two, 1, **{"train.lr": 1e-2}), judged.trial(two, 2)]
    judged.won(two, [*trials, judged.stopped(two, trials[1], 3, 4)])
    three = judged.searched(folder, **{"train.seed": "2"})
    judged.stopped(three, trials[0], 1, 5)
    registry = Registry(two.storage)
    registry.register("elsewhere", bundles.files(), {"metric": "roc_auc"})
    return folder


def uri(house: Path) -> str:
    return (house / "storage").as_uri()


def test_gradients_of_many_layers_that_are_zero_or_not_finite_are_drawn() -> None:
    def rows(*gradients: float) -> list[Row]:
        counts = [0] * BINS
        return [
            Row(epoch, f"blocks.{place}", gradient, 1.0, 1e-3, None, counts, counts)
            for epoch, gradient in enumerate(gradients, 1)
            for place in range(20)
        ]

    for gradients in ((1e-3, 0.0, math.inf, math.nan), (math.nan,), (0.0,), (1.0, 1.0)):
        drawn = flow.gradients(rows(*gradients))
        assert drawn is not None
        assert "nan" not in drawn.picture
        assert len(drawn.rows) == 20
    assert flow.gradients([]) is None


def test_a_report_begins_with_a_sentence_and_says_what_is_wrong_first(house: Path) -> None:
    found = eagleray.report("tumours", uri(house))
    assert re.match(
        r"tumours version 2 finds \d+ of 100 rows where target is malignant; \d+ of 100 alarms are"
        r" right; better than version 1, the champion, by 0\.\d+ roc_auc, 95 % interval ",
        found.sentence,
    )
    order = [("fail", "warn", "pass").index(one.severity) for one in found.findings]
    assert order == sorted(order)
    assert "look 2 at its test part of 114 rows" in str(found)
    assert list(found.metrics["metric"][:2]) == ["accuracy", "balanced_accuracy"]
    assert found.sentence in found._repr_html_()
    assert "<svg" in found._repr_html_()


def test_the_page_stands_alone_and_is_small(house: Path) -> None:
    html = eagleray.report("tumours/2", uri(house)).html()
    assert len(html.encode()) < 150_000
    assert not re.search(r"""(?:src|href)=["'](?!data:,)|url\(|@import|<script""", html)
    for heading in ("Findings", "What is taken for what", "The most wrong rows", "The search"):
        assert f">{heading}</h2>" in html
    for title in ("ROC curve", "Calibration", "Trials by epoch", "Who went on", "What was tried"):
        assert f"<strong>{title}</strong>" in html
    assert "<strong>Gradient flow</strong>" in html
    assert "<strong>Learning curve by the number of rows</strong>" in html
    assert 'class="name s1"' in html
    assert "Gradients, weights and units of 2 layers were watched in 3 epochs" in html
    assert html.count("<svg") == html.count('role="img"') == html.count("<figure")


def test_json_has_all_of_it_and_nothing_is_computed_anew(
    house: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["report", "tumours/1", "--json", "--storage", uri(house)]) == 0
    said = json.loads(capsys.readouterr().out)
    version = eagleray.models(uri(house))["tumours"].version(1)
    assert said["evaluation"]["metrics"]["roc_auc"]["value"] == pytest.approx(
        version.manifest["metrics"]["test"]["roc_auc"]
    )
    assert (said["version"], said["aliases"], len(said["trials"])) == (1, ["champion"], 1)
    assert [row["layer"] for row in said["layers"]] == ["head.0", "head.3"] * 3
    file = tmp_path / "page.html"
    assert cli.main(["report", "tumours/1", "--out", str(file), "--storage", uri(house)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == said["sentence"]
    assert lines[-1] == f"report: {file}"
    assert any(line.startswith("WRONG: It is worse than a baseline, ") for line in lines)
    assert said["sentence"].replace("tumours version 1 f", ">F") in file.read_text()


def test_a_search_is_reported_by_its_id_with_or_without_a_winner(house: Path) -> None:
    ids = {one.name for one in (house / "storage" / "searches" / "tumours").iterdir()}
    known = [eagleray.report(one, uri(house)) for one in ids]
    titles = sorted(one.title for one in known)
    assert titles[:2] == ["tumours version 1", "tumours version 2"]
    (under_way,) = [one for one in known if one.evaluation is None]
    assert "has no winner yet: 1 of 1 trials that began have ended" in under_way.sentence
    assert "Best trials" in under_way.html()


def test_of_a_model_without_a_version_the_search_under_way_is_reported(tmp_path: Path) -> None:
    one = judged.searched(tmp_path)
    judged.stopped(one, judged.trial(one, 1), 2, 3)
    found = eagleray.report("tumours", uri(tmp_path))
    assert (found.title, found.findings) == (f"tumours, search {one.id}", [])
    assert found.file_name == f"tumours-{one.id}-report.html"


def test_a_version_made_elsewhere_says_that_it_was_not_judged(house: Path) -> None:
    found = eagleray.report("elsewhere", uri(house))
    assert "elsewhere version 1 has no evaluation: it was made elsewhere" in found.sentence
    assert (found.findings, len(found.metrics)) == ([], 0)
    assert found.sentence.replace("elsewhere version 1 h", ">H") in found.html()
    assert found.sentence in found._repr_html_()


@pytest.mark.parametrize(
    ("what", "law"),
    [
        (
            "tumors",
            "must be of a model or a search in .*, but got 'tumors'; did you mean 'tumours'",
        ),
        ("tumours/9", "must be one of its versions (1, 2), but got 9"),
        ("tumours/chmpion", "did you mean 'champion'"),
        ("../models/603e4f0a3f85", "must be NAME, NAME/VERSION"),
        ("../603e4f0a3f85", "must be of a model or a search in .*, but got '../603e4f0a3f85'"),
        ("tumours/603e4f0a3f85", "must be one of its aliases (champion)"),
        ("/2", "must be NAME, NAME/VERSION, NAME/SEARCH or SEARCH, but got '/2'"),
        ("tumours/", "must be NAME, NAME/VERSION"),
        ("a/b/c", "must be NAME, NAME/VERSION"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(house: Path, what: str, law: str) -> None:
    with pytest.raises(errors.UserError) as caught:
        eagleray.report(what, uri(house))
    assert re.search(law.replace("(", r"\(").replace(")", r"\)"), str(caught.value))


def test_a_file_that_cannot_be_written_is_named(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--out", "/proc/nowhere/report.html", "--storage", uri(house)]
    assert cli.main(["report", "tumours", *where]) == 2
    assert "must go to a file that can be written, but got /proc" in capsys.readouterr().err


def test_an_evaluation_that_is_damaged_is_an_error_that_names_it(tmp_path: Path) -> None:
    store = storage.open(tmp_path.as_uri())
    Registry(store).register("left", {**bundles.files(), evaluations.FILE: b"{"}, {})
    with pytest.raises(errors.CorruptObjectError, match=r"left version 1, evaluation\.json"):
        eagleray.report("left", tmp_path.as_uri())


def test_two_versions_stand_side_by_side(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "tumours/1", "tumours/2", "--storage", uri(house)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tumours version 2: better than version 1, the champion, by 0.")
    assert lines[1].split("  ")[0] == "METRIC"
    apart = reports_of("tumours/2", "elsewhere", house)
    assert "were not judged on the same rows" in apart.verdict
    assert apart.sides[0].right is None


def reports_of(left: str, right: str, house: Path) -> reports.Comparison:
    return reports.compare(left, right, uri(house))


def test_names_of_the_data_are_text_on_the_page(tmp_path: Path) -> None:
    """Classes, columns and values come from files of strangers."""
    evil = "<script>alert(1)</script>"
    found = evaluation(
        classes=[evil, "b"],
        confusion=[[1, 2], [3, 4]],
        slices=[slice_of(evil)],
        diagrams=[
            Diagram(
                name="roc",
                title=evil,
                says=evil,
                x=evil,
                y=evil,
                lines=(Line(name=evil, x=[0, 1], y=[0, 1]), Line(name="b", x=[0, 1], y=[0, 1])),
                diagonal=evil,
            )
        ],
    )
    store = storage.open(tmp_path.as_uri())
    files = {**bundles.files(), evaluations.FILE: evaluations.encode(found)}
    Registry(store).register("left", files, {})
    report = eagleray.report("left", tmp_path.as_uri())
    assert evil not in report.html()
    assert evil not in report._repr_html_()
    assert "&lt;script&gt;" in report.html()


def evaluation(**fields: object) -> Evaluation:
    known: dict[str, object] = {
        "target": "left",
        "metric": "rmse",
        "mode": "min",
        "rows": 100,
        "looks": 1,
        "metrics": {"rmse": Estimate(value=2.0, low=1.5, high=2.5)},
    }
    return Evaluation.model_validate(known | fields)


def curve(outcome: str) -> LearningCurve:
    points = [{"rows": rows, "score": {"value": 2 + 100 / rows}} for rows in (200, 400)]
    law = {"rows": 400, "floor": 1.8, "factor": 0.4, "exponent": 1.0}
    known = {"metric": "rmse", "mode": "min", "points": points, "law": law, "outcome": outcome}
    gain = {"value": 0.2, "low": 0.1, "high": 0.3}
    return LearningCurve.model_validate({**known, "last": {"value": 0.3}, "gain": gain})


def slice_of(value: str) -> Slice:
    return Slice(
        where={"city": value},
        rows=40,
        miss=Estimate(value=2.0, low=1.5, high=2.5),
        others=1.0,
    )


def verdict(outcome: str, value: float) -> Verdict:
    gap = Estimate(value=value, low=value - 0.1, high=value + 0.1)
    return Verdict.model_validate({"outcome": outcome, "metric": "rmse", "difference": gap})


def test_a_metric_of_which_less_is_better_is_better_by_a_positive_number() -> None:
    other = Comparison(version=3, verdict=verdict("better", -0.4))
    assert findings.against(evaluation(), other) == (
        "better than version 3, the champion, by 0.4 rmse, 95 % interval 0.3 to 0.5"
    )


@pytest.mark.parametrize(
    ("fields", "severity", "law"),
    [
        ({"warnings": ["never predicts 'yes'"]}, "fail", "It never predicts 'yes'."),
        (
            {"baselines": [Baseline(name="boosting", metrics={}, verdict=verdict("worse", 0.5))]},
            "fail",
            "It is worse than a baseline, boosting, by 0.5 rmse",
        ),
        (
            {"baselines": [Baseline(name="boosting", metrics={}, verdict=verdict("better", -1))]},
            "pass",
            "It beats a baseline, boosting, by 1 rmse, 95 % interval 0.9 to 1.1",
        ),
        (
            {"champion": Comparison(version=2, why="it needs columns that the data lack: age")},
            "warn",
            "It is not compared with version 2, the champion: it needs columns",
        ),
        ({"looks": 3}, "warn", "look 3 at its test part of 100 rows: who chooses among as many"),
        ({"slices": [slice_of("Oslo")], "groups": 9}, "warn", "It is worse where city is Oslo"),
        ({"groups": 9}, "pass", "None of 9 groups of rows is worse"),
        (
            {"fit": Fit(sign="over-fit", says="it is so", train={}, rows=9)},
            "warn",
            "It is over-fit: it is so.",
        ),
        ({"training": [warned("Dead ReLU: all.", check="dead ReLU")]}, "warn", "Dead ReLU: all."),
        (
            {"learning_curve": curve("helps")},
            "warn",
            "More data would help: twice the rows (800) would lower rmse by about 0.2, 95 %"
            " interval 0.1 to 0.3; from 200 to 400 rows it fell by 0.3.",
        ),
        (
            {"learning_curve": curve("hardly")},
            "pass",
            "More rows would hardly help: twice the rows",
        ),
        ({"learning_curve": curve("unclear")}, "pass", "Whether more rows would help is not clear"),
        (
            {"latency": Latency(ms=7.25, bound_ms=5.0, tried=2, fix="a smaller model")},
            "warn",
            "It takes 7.25 ms for one row on one core, more than tune.ensemble.latency_ms: 5; of 2"
            " other trials with weights in storage none is within it.",
        ),
        ({"latency": Latency(ms=0.25, bound_ms=5.0)}, "pass", "It takes 0.25 ms for one row on"),
    ],
)
def test_each_finding_has_its_severity_and_its_words(
    fields: dict[str, object], severity: str, law: str
) -> None:
    found = [one for one in findings.of(evaluation(**fields)) if law in one.message]
    assert [one.severity for one in found] == [severity]
