"""Metrics of recommended lists, and their resamples by user."""

import numpy as np
import pytest
from sklearn import metrics as sk

from eagleray import evaluation
from eagleray.learn import metrics, ranks, schema

ITEMS, K = 30, 5


def target(k: int = K) -> schema.Target:
    names = tuple(f"i{number:02}" for number in range(ITEMS))
    return schema.Target(name="item", task="ranking", classes=names, user="who", k=k)


def lists(item_UK: np.ndarray, user_B: np.ndarray) -> np.ndarray:
    """Outputs of rows whose users, from 0 on, have these lists."""
    scores = np.tile(np.arange(item_UK.shape[1], 0.0, -1), (len(user_B), 1))
    return np.concatenate([scores, item_UK[user_B], user_B[:, None] + 1], axis=1)


def drawn(seed: int, users: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores (U, I), and rows: their users, items and outputs."""
    random = np.random.default_rng(seed)
    score_UI = random.normal(size=(users, ITEMS))
    relevant_UI = random.random((users, ITEMS)) < 0.1 + 0.1 * (score_UI > 0)
    relevant_UI[:, 0] = True
    user_B, item_B = np.nonzero(relevant_UI)
    order = random.permutation(len(user_B))
    user_B, item_B = user_B[order], item_B[order]
    return score_UI, user_B, item_B, lists(np.argsort(-score_UI, 1)[:, :K], user_B)


@pytest.mark.parametrize("seed", range(3))
def test_ndcg_is_that_of_scikit_learn(seed: int) -> None:
    score_UI, user_B, item_B, outputs = drawn(seed)
    relevant_UI = np.zeros_like(score_UI)
    relevant_UI[user_B, item_B] = 1
    found = metrics.score(target(), item_B, outputs)
    assert found["ndcg_at_k"] == pytest.approx(sk.ndcg_score(relevant_UI, score_UI, k=K))


def test_recall_precision_and_coverage_are_those_of_their_definitions() -> None:
    item_UK = np.array([[3, 1, 7, 8, 9], [4, 5, 6, -1, -1]])
    user_B, item_B = np.array([0, 0, 0, 1]), np.array([7, 3, 20, 21])
    found = metrics.score(target(), item_B, lists(item_UK, user_B))
    assert found["recall_at_k"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["map_at_k"] == pytest.approx(((1 + 2 / 3) / 3 + 0) / 2)
    assert found["coverage_at_k"] == pytest.approx(8 / ITEMS)
    perfect = metrics.score(target(), item_B[:2], lists(np.array([[7, 3, 1, 2, 4]]), user_B[:2]))
    assert perfect["ndcg_at_k"] == perfect["recall_at_k"] == perfect["map_at_k"] == 1.0


def test_the_order_of_rows_does_not_matter_and_unknown_users_are_each_their_own() -> None:
    _, user_B, item_B, outputs = drawn(1)
    order = np.random.default_rng(0).permutation(len(item_B))
    first = metrics.score(target(), item_B, outputs)
    assert metrics.score(target(), item_B[order], outputs[order]) == pytest.approx(first)
    unknown = outputs.copy()
    unknown[:, -1] = 0
    found = ranks.of(item_B, unknown)
    assert len(found.own_U) == len(item_B)
    assert len(ranks.of(item_B, unknown, user_B).own_U) == 40


def test_resamples_draw_users_with_all_of_their_rows() -> None:
    _, user_B, item_B, outputs = drawn(2, users=60)
    one = evaluation.Judged(target(), item_B, outputs, unit_B=user_B)
    assert one.units == 60
    by_user = np.array(
        [
            metrics.score(target(), item_B[user_B == user], outputs[user_B == user])["ndcg_at_k"]
            for user in range(60)
        ]
    )
    assert one.values["ndcg_at_k"] == pytest.approx(by_user.mean())
    spread = one.resampled["ndcg_at_k"].std()
    assert spread == pytest.approx(by_user.std() / np.sqrt(60), rel=0.15)
    found = evaluation.estimates(one)
    assert found["ndcg_at_k"].low < by_user.mean() < found["ndcg_at_k"].high
    assert found["coverage_at_k"].low is None, "a resample has fewer users, and lists fewer items"


def test_a_better_list_is_better_beyond_noise() -> None:
    score_UI, user_B, item_B, _ = drawn(3, users=200)
    good, bad = (
        evaluation.Judged(
            target(), item_B, lists(np.argsort(-one, 1)[:, :K], user_B), unit_B=user_B
        )
        for one in (score_UI, -score_UI)
    )
    for name in ("ndcg_at_k", "map_at_k", "recall_at_k"):
        found = evaluation.verdict(good, bad, name)
        assert found is not None
        assert found.outcome == "better"
    assert evaluation.verdict(good, good.beside(good.outputs), "ndcg_at_k").outcome == (
        "no difference"
    )
