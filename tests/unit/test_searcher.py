"""What a search tries: each configuration once, however often it is interrupted."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.search import Searcher

from eagleray import spec
from eagleray.spec.tune import Tune
from eagleray.state import searches
from ray_jobs import search, searcher

TRIALS = 16
ENDLESS = "{lr: {loguniform: [1.0e-4, 1.0e-1]}, weight_decay: {uniform: [0, 1]}}"
IDS = itertools.count()
TWELVE = "{lr: {choice: [0.1, 0.2, 1, 1.0]}, epochs: {randint: [1, 4]}}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("searcher")


def experiment(folder: Path, train: str, **tune: object) -> spec.Experiment:
    file = folder / "x.yaml"
    options = json.dumps({"trials": TRIALS, **tune})
    file.write_text(
        f"name: x\ndata: {{source: 'dataset:wine', target: target}}\ntrain: {train}\n"
        f"tune: {options}\n"
    )
    return spec.load(file)


class Driver:
    """A driver that keeps records as the real one does: all that an interruption leaves."""

    def __init__(self, chosen: spec.Experiment, earlier: Sequence[search.Past] = ()) -> None:
        self.chosen, self.kept = chosen, dict[int, searches.Record]()
        self.earlier = earlier
        self.start()

    def start(self) -> None:
        stored = [json.loads(self.kept[number].model_dump_json()) for number in sorted(self.kept)]
        known = [searches.Record.model_validate(one) for one in stored]
        self.finder = searcher.Searcher(self.chosen, "max", known, earlier=self.earlier)
        assert self.finder.exhausted == search.exhausted(self.chosen, known)
        self.running: dict[str, searches.Record] = {}

    def suggest(self) -> bool:
        """Start a trial; False where none is left."""
        trial_id = str(next(IDS))
        suggested = self.finder.suggest(trial_id)
        if not isinstance(suggested, dict):
            return False
        (one,) = suggested["members"]
        record = self.kept.setdefault(one["number"], searches.Record(**one))
        assert record.values == one["values"]
        self.running[trial_id] = record
        return True

    def end(self, trial_id: str, *, fails: bool = False) -> None:
        record = self.running.pop(trial_id)
        if fails:
            record.status, record.cause = "failed", None
            self.finder.on_trial_complete(trial_id, result(record, status="failed", failure="NaN"))
            return
        record.status, record.score = "finished", score(record.values)
        if self.chosen.tune.cost is not None:
            record.costs = {self.chosen.tune.cost: cost(record.values)}
        report = result(record, score=record.score, costs=record.costs)
        self.finder.on_trial_complete(trial_id, report)

    def tried(self) -> list[dict[str, Any]]:
        return [self.kept[number].values for number in sorted(self.kept)]


def result(record: searches.Record, **report: object) -> dict[str, Any]:
    """What a trial of one member reports."""
    return {"members": [{"number": record.number, "done": True, **report}]}


def score(values: dict[str, Any]) -> float:
    return -sum(float(value) ** 2 for value in values.values())


def cost(values: dict[str, Any]) -> float:
    return float(values["train.weight_decay"])


def whole(chosen: spec.Experiment, *, interrupted: bool) -> list[dict[str, Any]]:
    """All configurations of a search with one trial at a time, interrupted in each, or never."""
    driver = Driver(chosen)
    while driver.suggest():
        if interrupted:
            driver.start()
            assert driver.suggest()
        driver.end(next(iter(driver.running)))
        if interrupted:
            driver.start()
    return driver.tried()


SEARCHES = [(ENDLESS, "tpe"), (ENDLESS, "random"), (TWELVE, "tpe"), (TWELVE, "random")]
SEARCHES += [(TWELVE, "grid"), (ENDLESS, "cma")]


def test_every_searcher_of_the_file_is_registered() -> None:
    assert set(get_args(Tune.model_fields["search"].annotation)) == set(searcher.REGISTRY)


@pytest.mark.parametrize(("train", "kind"), SEARCHES)
@pytest.mark.parametrize("modelled", [searcher.MODELLED, 12])
def test_a_search_interrupted_at_every_trial_tries_what_an_uninterrupted_one_does(
    folder: Path, train: str, kind: str, modelled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it has forgotten all but the best and the latest trials on the way."""
    for name, value in {"MODELLED": modelled, "BEST": 2, "LATEST": 6}.items():
        monkeypatch.setattr(searcher, name, value)
    chosen = experiment(folder, train, search=kind)
    tried = whole(chosen, interrupted=True)
    assert tried == whole(chosen, interrupted=False)
    assert len({json.dumps(values) for values in tried}) == chosen.trials


@pytest.mark.parametrize(("train", "kind"), [(ENDLESS, "tpe"), (TWELVE, "tpe"), (TWELVE, "grid")])
@settings(max_examples=10)
@given(steps=st.lists(st.sampled_from(["suggest", "suggest", "end", "fail", "interrupt"])))
def test_no_configuration_is_tried_twice_in_whatever_order_trials_end_or_are_interrupted(
    folder: Path, train: str, kind: str, steps: list[str]
) -> None:
    driver = Driver(experiment(folder, train, search=kind))
    for step in steps:
        if step == "suggest":
            driver.suggest()
        elif step == "interrupt":
            driver.start()
        elif driver.running:
            driver.end(list(driver.running)[-1], fails=step == "fail")
    while driver.running or driver.suggest():
        driver.end(next(iter(driver.running)))
    keys = {json.dumps(values) for values in driver.tried()}
    assert sorted(driver.kept) == list(range(1, driver.chosen.trials + 1))
    assert len(keys) == len(driver.kept)


def test_more_trials_go_on_from_those_that_are_there(folder: Path) -> None:
    few = whole(experiment(folder, ENDLESS, trials=6), interrupted=False)
    driver = Driver(experiment(folder, ENDLESS, trials=6))
    while driver.suggest():
        driver.end(next(iter(driver.running)))
    driver.chosen = experiment(folder, ENDLESS, trials=9)
    driver.start()
    while driver.suggest():
        driver.end(next(iter(driver.running)))
    assert driver.tried()[:6] == few
    assert driver.tried() == whole(driver.chosen, interrupted=False)


def test_a_search_with_a_cost_interrupted_at_every_trial_tries_the_same(folder: Path) -> None:
    chosen = experiment(folder, ENDLESS, cost="latency", trials=20)
    assert whole(chosen, interrupted=True) == whole(chosen, interrupted=False)


def test_a_search_that_forgets_models_its_best_and_its_latest_trials(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"MODELLED": 20, "BEST": 4, "LATEST": 8}.items():
        monkeypatch.setattr(searcher, name, value)
    driver = Driver(experiment(folder, ENDLESS, trials=60))
    while driver.suggest():
        driver.end(next(iter(driver.running)))
    modelled = [one.values[0] for one in driver.finder._study.get_trials()]
    scores = [driver.kept[number].score for number in sorted(driver.kept)]
    assert len(modelled) <= 20
    assert max(modelled) == max(scores)
    assert modelled[-8:] == scores[-8:]


def test_earlier_trials_are_told_to_the_sampler_and_tried_again_only_if_it_says_so(
    folder: Path,
) -> None:
    def later(earlier: Sequence[search.Past]) -> float:
        driver = Driver(experiment(folder, ENDLESS), earlier)
        while driver.suggest():
            driver.end(next(iter(driver.running)))
        return sum(one["train.weight_decay"] for one in driver.tried()) / TRIALS

    known = [{"train.lr": 1e-3, "train.weight_decay": step / 40} for step in range(40)]
    assert later([search.Past(dict(one), score(one), 0.0) for one in known]) < 0.25 < later([])


def test_cma_goes_where_results_are_good_and_starts_where_earlier_ones_were(folder: Path) -> None:
    def mean(earlier: Sequence[search.Past], first: int) -> float:
        driver = Driver(experiment(folder, ENDLESS, search="cma", trials=60), earlier)
        while driver.suggest():
            driver.end(next(iter(driver.running)))
        return sum(one["train.weight_decay"] for one in driver.tried()[first:][:10]) / 10

    known = [{"train.lr": 1e-3, "train.weight_decay": step / 40} for step in range(40)]
    assert mean([], 50) < 0.15 < mean([], 0)
    assert mean([search.Past(dict(one), score(one), 0.0) for one in known], 0) < 0.15


def lose(driver: Driver, trial_id: str) -> None:
    """End a trial that was lost to storage."""
    record = driver.running.pop(trial_id)
    record.status = "lost"
    driver.finder.on_trial_complete(trial_id, result(record, status="lost", cause=None))


def test_a_trial_that_was_lost_to_storage_comes_back_and_is_left_after_the_third_loss(
    folder: Path,
) -> None:
    driver = Driver(experiment(folder, ENDLESS, trials=2))
    for _ in range(searcher.RETURNS + 1):
        assert driver.suggest()
        ((trial_id, record),) = driver.running.items()
        assert record.number == 1
        lose(driver, trial_id)
    assert driver.suggest()
    ((trial_id, record),) = driver.running.items()
    assert record.number == 2
    driver.end(trial_id)
    assert not driver.suggest()
    driver.start()  # the next run of the search
    assert driver.suggest()
    assert next(iter(driver.running.values())).number == 1


def test_a_trial_that_came_back_is_scored(folder: Path) -> None:
    driver = Driver(experiment(folder, ENDLESS, trials=1))
    assert driver.suggest()
    lose(driver, next(iter(driver.running)))
    assert driver.suggest()
    driver.end(next(iter(driver.running)))
    (told,) = driver.finder._study.get_trials()
    assert told.values == [driver.kept[1].score]
    assert not driver.suggest()


def test_tpe_goes_where_results_are_good_and_random_does_not(folder: Path) -> None:
    """A sampler made anew for each trial models what all trials before it have shown."""

    def later(kind: str) -> float:
        tried = whole(experiment(folder, ENDLESS, search=kind, trials=60), interrupted=False)
        return sum(values["train.weight_decay"] for values in tried[-30:]) / 30

    assert later("tpe") < 0.25 < later("random")


def test_another_seed_is_another_search(folder: Path) -> None:
    one, other = (
        whole(experiment(folder, ENDLESS, trials=4, seed=seed), interrupted=False)
        for seed in (0, 1)
    )
    assert not [values for values in one if values in other]


def fail(driver: Driver, cause: str | None, *, start: bool = True) -> None:
    assert not start or driver.suggest()
    trial_id = next(iter(driver.running))
    record = driver.running.pop(trial_id)
    record.status, record.failure, record.cause = "failed", "it broke", cause
    driver.finder.on_trial_complete(trial_id, result(record, status="failed", cause=cause))


def test_a_search_whose_trials_all_fail_alike_ends_after_three_and_stays_ended(
    folder: Path,
) -> None:
    driver = Driver(experiment(folder, ENDLESS))
    for _ in range(search.MIN_FAILURES):
        fail(driver, "TypeError at own.py:3")
    assert driver.finder.suggest("next") == Searcher.FINISHED
    driver.start()
    assert driver.finder.exhausted


@pytest.mark.parametrize("causes", [["a", "b", "a"], ["a", None, "a"], [None, None, None]])
def test_failures_that_differ_or_are_of_one_configuration_do_not_end_a_search(
    folder: Path, causes: list[str | None]
) -> None:
    driver = Driver(experiment(folder, ENDLESS))
    for cause in causes:
        fail(driver, cause)
    assert driver.suggest()


def test_while_a_trial_that_may_do_better_is_under_way_nobody_gives_up(folder: Path) -> None:
    driver = Driver(experiment(folder, ENDLESS))
    assert driver.suggest()
    (first,) = driver.running
    record = driver.running.pop(first)
    for _ in range(search.MIN_FAILURES - 1):
        fail(driver, "TypeError at own.py:3")
    assert driver.finder.suggest("waits") is None
    driver.finder.on_trial_result(first, result(record, score=0.5, done=False))
    assert driver.suggest()
    fail(driver, "TypeError at own.py:3", start=False)
    assert driver.finder.suggest("waits") is None
    driver.running = {first: record}
    driver.end(first)
    assert driver.suggest()


SHAPES = "lr: {uniform: [0.001, 0.1]}, batch_size: {choice: [16, 32]}"


def members(finder: searcher.Searcher, trial_id: str) -> list[dict[str, Any]]:
    suggested = finder.suggest(trial_id)
    return suggested["members"] if isinstance(suggested, dict) else []


def report(suggested: list[dict[str, Any]], **fields: object) -> dict[str, Any]:
    return {"members": [{"number": one["number"], "done": True, **fields} for one in suggested]}


@pytest.mark.parametrize("kind", ["tpe", "random"])
def test_a_pack_has_trials_of_one_shape_and_every_configuration_is_tried_once(
    folder: Path, kind: str
) -> None:
    chosen = experiment(folder, f"{{{SHAPES}}}", search=kind, trials=23)
    finder = searcher.Searcher(chosen, "max", [], pack=4)
    suggested = list(iter(lambda: members(finder, str(next(IDS))), []))
    for pack in suggested:
        assert len({one["values"]["train.batch_size"] for one in pack}) == 1
    numbers = [one["number"] for pack in suggested for one in pack]
    assert sorted(numbers) == list(range(1, 24))
    assert max(map(len, suggested)) == 4
    assert len(suggested) < 10


@pytest.mark.parametrize(
    ("seconds", "tune", "several"),
    [
        (0.2, {"search": "random"}, [5, 5, 5, 5]),
        (0.01, {"search": "random"}, [8, 8, 8, 8]),
        (3.0, {"search": "random"}, [1, 1, 1, 1]),
        (0.2, {"search": "random", "scheduler": "asha"}, [1, 1, 1, 1]),
        (0.2, {"search": "tpe"}, [5, 4, 1, 1]),  # ten depend on no result
    ],
)
def test_short_trials_that_depend_on_no_result_are_handed_out_several_at_once(
    folder: Path, seconds: float, tune: dict[str, str], several: list[int]
) -> None:
    chosen = experiment(folder, ENDLESS, **{"scheduler": "none", "trials": 100} | tune)
    finder = searcher.Searcher(chosen, "max", [], room=lambda: 1)
    sizes = []
    for trial_id in map(str, range(5)):
        suggested = finder.suggest(trial_id)
        assert isinstance(suggested, dict)
        sizes.append(len(suggested["members"]))
        assert suggested["in_turn"] == (sizes[-1] > 1)
        reports = [
            {"number": one["number"], "done": True, "score": 0.5, "seconds": seconds}
            for one in suggested["members"]
        ]
        finder.on_trial_complete(trial_id, {"members": reports})
    assert sizes == [1, *several]


def test_the_last_trials_are_shared_among_the_workers(folder: Path) -> None:
    chosen = experiment(folder, ENDLESS, search="random", scheduler="none")
    finder = searcher.Searcher(chosen, "max", [], room=lambda: 2)
    sizes = []
    for trial_id in map(str, range(TRIALS)):
        suggested = finder.suggest(trial_id)
        if not isinstance(suggested, dict):
            break
        sizes.append(len(suggested["members"]))
        ends = [
            {"number": one["number"], "done": True, "score": 0.5} for one in suggested["members"]
        ]
        finder.on_trial_complete(trial_id, {"members": [one | {"seconds": 0.01} for one in ends]})
    assert sizes == [1, 4, 3, 2, 2, 1, 1, 1, 1]


def test_a_search_in_packs_goes_on_with_what_was_not_ended(folder: Path) -> None:
    chosen = experiment(folder, ENDLESS, search="random", trials=8)
    finder = searcher.Searcher(chosen, "max", [], pack=4)
    first, second = members(finder, "first"), members(finder, "second")
    finder.on_trial_complete("first", report(first, score=0.5))
    finder.on_trial_result("second", report(second[:1], score=0.4))
    records = [searches.Record(**one, status="finished", score=0.5) for one in [*first, second[0]]]
    records += [searches.Record(**one, status="running") for one in second[1:]]
    resumed = searcher.Searcher(chosen, "max", records, pack=4)
    assert members(resumed, "again") == second[1:]
    assert members(resumed, "more") == []


def test_members_that_fail_alike_end_a_search_as_single_trials_do(folder: Path) -> None:
    finder = searcher.Searcher(experiment(folder, ENDLESS), "max", [], pack=search.MIN_FAILURES)
    failed = report(members(finder, "first"), status="failed", cause="TypeError at own.py:3")
    finder.on_trial_complete("first", failed)
    assert finder.suggest("next") == Searcher.FINISHED


def test_a_pack_that_is_lost_with_its_machine_says_nothing_of_its_configurations(
    folder: Path,
) -> None:
    finder = searcher.Searcher(experiment(folder, ENDLESS), "max", [], pack=search.MIN_FAILURES)
    assert members(finder, "first")
    finder.on_trial_complete("first", None, error=True)
    assert members(finder, "next")
