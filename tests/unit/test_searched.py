"""What searched keys are worth, and what the audit found, in a report."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

import eagleray
from eagleray import findings
from eagleray.reports import figures, searched
from eagleray.state import searches
from tests import judged


def trial(number: int, score: float | None, **values: Any) -> searches.Record:
    drawn = {key.replace("_", ".", 1): value for key, value in values.items()}
    return searches.Record(number=number, values=drawn, status="finished", score=score)


def planted(count: int) -> list[searches.Record]:
    """Scores go by the learning rate's logarithm, a little by the layers, not by dropout."""
    draw, made = random.Random(0), []
    for number in range(1, count + 1):
        power, hidden, dropout = draw.uniform(-4, -1), draw.choice([[8], [16]]), draw.random()
        score = 0.5 + power / 10 + 0.02 * (hidden == [16])
        made.append(
            trial(number, score, train_lr=10**power, model_hidden=hidden, model_dropout=dropout)
        )
    return made


def test_the_key_that_the_scores_go_by_is_worth_most_and_the_others_less() -> None:
    found = searched.worth(planted(60))
    assert next(iter(found.shares)) == "train.lr"
    assert found.shares["train.lr"] > 0.8 > 0.1 > found.shares["model.dropout"]
    assert sum(found.shares.values()) == pytest.approx(1)
    assert (found.trials, found.why) == (60, "")
    assert searched.worth(planted(60)[::-1]) == found
    drawn = figures.worth(found, "roc_auc")
    assert drawn is not None
    assert [row[0] for row in drawn.rows] == list(found.shares)
    assert "roc_auc among 60 trials" in drawn.says


def test_a_key_that_some_trials_lack_or_that_never_differs_is_left_out() -> None:
    trials = [
        trial(n, n / 40, train_lr=n / 100, train_seed=0, **({"model_width": n} if n % 2 else {}))
        for n in range(1, 31)
    ]
    found = searched.worth(trials)
    assert (list(found.shares), list(found.left)) == (["train.lr"], ["model.width"])
    drawn = figures.worth(found, "f1")
    assert drawn is not None
    assert drawn.says.endswith("are left out: model.width.")


@pytest.mark.parametrize(
    ("trials", "why"),
    [
        ([], "0 trials have a score, it takes 10"),
        (planted(9), "9 trials have a score, it takes 10"),
        ([*planted(9), trial(10, None, train_lr=0.1)], "9 trials have a score, it takes 10"),
        ([trial(n, n / 20) for n in range(1, 21)], "no searched key differs among all trials"),
        ([trial(n, 0.5, train_lr=n / 20) for n in range(1, 21)], "all trials score the same"),
    ],
)
def test_where_nothing_can_be_said_the_reason_is(trials: list[searches.Record], why: str) -> None:
    found = searched.worth(trials)
    assert (found.shares, found.why) == ({}, why)
    assert figures.worth(found, "f1") is None


def test_thousands_of_trials_take_no_longer_than_hundreds() -> None:
    began = time.process_time()
    found = searched.worth(planted(3000))
    assert found.trials == searched.MOST
    assert next(iter(found.shares)) == "train.lr"
    assert time.process_time() - began < 60


def test_a_report_has_the_worth_of_keys_and_the_audit_of_its_search(tmp_path: Path) -> None:
    one = judged.searched(tmp_path)
    whole = judged.trial(one, 1)
    for number in range(2, 14):
        judged.stopped(
            one, whole.model_copy(update={"values": whole.values | {"train.lr": number / 1000}}),
            number, number - 1,
        )  # fmt: skip
    wrong = findings.wrong("<b> tells the target", fix="data: {drop: [<b>]}", check="leak")
    one.records.save(searches.Audit(rows=569, total=569, findings=[wrong]))
    found = eagleray.report("tumours", (tmp_path / "storage").as_uri())
    html, said = found.html(), found.json()
    assert "<strong>What each searched key is worth</strong>" in html
    assert list(said["worth"]["shares"]) == ["train.lr"]
    assert "1 error in 569 rows" in html
    assert "&lt;b&gt; tells the target" in html
    assert "<b> tells" not in html
    assert said["audit"]["findings"][0]["check"] == "leak"


def test_a_report_of_few_trials_and_no_audit_says_why_and_has_no_section(tmp_path: Path) -> None:
    one = judged.searched(tmp_path)
    judged.stopped(one, judged.trial(one, 1), 2, 3)
    found = eagleray.report("tumours", (tmp_path / "storage").as_uri())
    assert "is not said: 2 trials have a score, it takes 10." in found.html()
    assert 'id="data"' not in found.html()
    assert found.json()["audit"] is None
