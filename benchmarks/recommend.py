"""NDCG@10 of a recommender on planted tastes, beside popularity and the planted optimum.

The optimum ranks by the very chances that the choices were drawn with. All leave out what a user
has chosen before, and are judged on the same test part. The last line is the claim.

Run: python -m benchmarks.recommend [--seed N] [--users N] [--items N]
"""

import argparse
import io
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich import console

from eagleray import bundle, spec, storage
from eagleray.engines.recommender import Recommender
from eagleray.learn import features, models, ranks
from eagleray.learn.histories import Histories
from eagleray.learn.models.recommender import Recommender as Module
from eagleray.state.models import Registry
from ray_jobs.data import prepare

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))
import tastes  # noqa: E402

LEAST_OF_OPTIMUM, LEAST_OF_POPULARITY = 0.9, 1.5
P50_MS = 5.0
"""Of one row's list, in the process."""
FILE = (ROOT / "examples" / "recommend.yaml").read_text()


def optimum(dataset: prepare.Dataset, logit_UI: np.ndarray) -> dict[str, float]:
    """Metrics of lists by the planted chances, on the test part."""
    target = dataset.schema.target
    user_B = np.array([int(name[1:]) for name in dataset.columns[target.user].tolist()])
    item_I = np.array([int(name[1:]) for name in target.classes])
    score_UI = logit_UI[:, item_I].copy()
    known = np.concatenate([dataset.split.train, dataset.split.validation])
    score_UI[user_B[known], dataset.targets[known]] = -np.inf
    test = dataset.split.test
    best = np.argsort(-score_UI, axis=1)[:, : target.k]
    item_BK, user = best[user_B[test]], user_B[test][:, None] + 1
    outputs = np.concatenate([np.zeros(item_BK.shape), item_BK, user], axis=1)
    found = ranks.of(dataset.targets[test], outputs)
    return {"ndcg_at_k": found.ndcg(), "recall_at_k": found.recall()}


def run(folder: Path, users: int, items: int, seed: int) -> dict[str, Any]:
    from ray_jobs import cluster, pipeline

    planted = tastes.planted(users, items, seed=seed)
    planted.frame.to_parquet(folder / "choices.parquet")
    (folder / "storage").mkdir()
    file = folder / "recommend.yaml"
    file.write_text(FILE.replace("tastes:choices", "choices.parquet"))
    began = time.perf_counter()
    with cluster.connected():
        chosen = spec.load(file, {"storage": (folder / "storage").as_uri()})
        ended = pipeline.run(chosen, console.Console(file=io.StringIO()))
    seconds = time.perf_counter() - began
    best = optimum(ended.search.dataset, planted.logit_UI)
    (plain,) = (one for one in ended.result.baselines if one.name == "popularity")
    return {
        "users": users,
        "items": items,
        "rows": len(planted.frame),
        "seconds": round(seconds, 1),
        "values": ended.winner.values,
        "ours": ended.result.test,
        "popularity": {name: one.value for name, one in plain.metrics.items()},
        "optimum": best,
        "p50_ms": latency(chosen),
    }


def latency(chosen: spec.Experiment) -> float:
    """Milliseconds of one row's list, median of 300."""
    registry = Registry(storage.open(chosen.storage))
    made = bundle.load(registry, registry.resolve(chosen.name, "champion"))
    assert made.golden is not None
    row = {name: values[:1] for name, values in made.golden.rows.items()}
    times = []
    for _ in range(300):
        began = time.perf_counter()
        list(made.task.answers(made.predict(row).outputs))
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times))


def large(users: int = 50_000, items: int = 10_000, choices: int = 50) -> dict[str, Any]:
    """Milliseconds of one row's list among many items, median of 300; vectors are by chance."""
    shape = features.Shape(categories=1, table=users + 2, users=users + 2)
    options = models.parse({"type": "recommender"})
    module = models.build(options, shape, items)
    assert isinstance(module, Module)
    random, user_N = np.random.default_rng(0), np.repeat(np.arange(1, users + 1), choices)
    chosen = Histories.of(user_N, random.integers(0, items, len(user_N)), users + 1)
    engine, times = Recommender(options, module, chosen), []
    for user in random.integers(0, users, 300):
        row = {"categories": np.array([[user + 2]], np.int32)}
        began = time.perf_counter()
        engine.run(row)
        times.append(time.perf_counter() - began)
    p50 = 1000 * float(np.median(times))
    claim = f"p50 in ms of a list among {items} items for one of {users} users"
    return {"claim": claim, "ours": p50, "target": P50_MS, "holds": p50 < P50_MS}


def claim(found: dict[str, Any]) -> dict[str, Any]:
    ours, peer, best = (found[key]["ndcg_at_k"] for key in ("ours", "popularity", "optimum"))
    reached = ours >= LEAST_OF_OPTIMUM * best and ours >= LEAST_OF_POPULARITY * peer
    size = ", ".join(f"{found[what]} {what}" for what in ("users", "items", "rows"))
    return {
        "claim": f"NDCG@10, {size}",
        "ours": ours,
        "peer": peer,
        "ratio": ours / peer,
        "optimum": best,
        "of_optimum": ours / best,
        "p50_ms": found["p50_ms"],
        "holds": bool(reached and found["p50_ms"] < P50_MS),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=tastes.USERS)
    parser.add_argument("--items", type=int, default=tastes.ITEMS)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), asked.users, asked.items, asked.seed)
    print(json.dumps(large()), flush=True)
    print(json.dumps(found), flush=True)
    print(json.dumps(claim(found)), flush=True)


if __name__ == "__main__":
    main()
