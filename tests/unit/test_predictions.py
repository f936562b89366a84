"""Metrics of what versions predict, as a scrape of a replica finds them."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eagleray.learn import schema, tasks

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from eagleray import bundle
from eagleray.learn import schema
from serving import metrics, predictions
from tests import bundles

seen = metrics.Metrics(Path(sys.argv[1]), "left")

def version(number, target=None, **more):
    made = bundles.make(target=target)
    made.number = number
    return made

def predicted(made, outputs, warnings=None):
    outputs = np.array(outputs, np.float64)
    rows = warnings or [[] for _ in outputs]
    seen.predicted(made, bundle.Prediction(outputs, rows))

binary = version(1)
raw = bundles.rows(3)
raw |= {"city": ["Bern", "Paris", "Lima"], "age": [30, 40, 4100]}
warned = binary.transforms.flags(bundle.schema.parse(binary.schema, raw))
predicted(binary, [[0.93, 0.07], [0.4, 0.6], [0.995, 0.005]], warned)
predicted(binary, [[0.2, 0.8]])
number = version(2, schema.Target(name="left", task="regression"))
predicted(number, [-9.0, 0.01, 9.0, 9.5])
names = tuple(f"c{number:02}" for number in range(30))
many = version(3, schema.Target(name="left", task="multiclass", classes=names))
for _ in range(predictions.MOST_PENDING // 15):
    predicted(many, np.eye(30))
    predicted(many, np.eye(30)[:1])
seen.request("predict", 200, 0.003, version="1")
seen.request("predict", 200, 0.3, version="1")
print(seen.exposition().decode())
"""


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Samples by series; in a process of its own, as a replica is one."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path_factory.mktemp("metrics"))]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    found = re.findall(r"^(eagleray_\w+\{.*\}) (\S+)$", done.stdout, re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_rows_are_counted_by_class_and_version(scraped: dict[str, float]) -> None:
    series = 'eagleray_predictions_total{{model="left",outcome="{}",version="{}"}}'
    assert scraped[series.format("no", 1)] == 2
    assert scraped[series.format("yes", 1)] == 2
    assert scraped[series.format("tenth 1", 2)] == 1
    assert scraped[series.format("tenth 10", 2)] == 2


def test_classes_beyond_a_bound_share_a_series(scraped: dict[str, float]) -> None:
    ours = {name: n for name, n in scraped.items() if "predictions_total" in name and '"3"' in name}
    batches = scraped['eagleray_batch_rows_count{model="left",version="3"}'] / 2
    assert len(ours) == 21
    assert ours['eagleray_predictions_total{model="left",outcome="other",version="3"}'] == (
        10 * batches
    )
    assert sum(ours.values()) == scraped['eagleray_rows_total{model="left",version="3"}']


def test_confidence_is_a_histogram_of_the_labels_probability(scraped: dict[str, float]) -> None:
    series = 'eagleray_confidence_bucket{{le="{}",model="left",version="1"}}'
    counts = [
        scraped[series.format(bound)] for bound in ("0.5", "0.6", "0.8", "0.95", "0.99", "1.0")
    ]
    assert counts == [0, 1, 2, 3, 3, 4]
    assert scraped['eagleray_confidence_sum{model="left",version="1"}'] == pytest.approx(3.325)
    assert not [name for name in scraped if "confidence" in name and 'version="2"' in name]


def test_unknown_categories_and_numbers_out_of_range_are_told_apart(
    scraped: dict[str, float],
) -> None:
    assert scraped['eagleray_unknown_categories_total{model="left",version="1"}'] == 2
    assert scraped['eagleray_out_of_range_total{model="left",version="1"}'] == 1


def test_sizes_of_batches_and_times_are_histograms(scraped: dict[str, float]) -> None:
    batch = 'eagleray_batch_rows_{}model="left",version="1"}}'
    assert scraped[batch.format('bucket{le="1.0",')] == 1
    assert scraped[batch.format('bucket{le="4.0",')] == 2
    assert scraped[batch.format("sum{")] == 4
    times = 'eagleray_request_seconds_{}model="left",route="predict",version="1"}}'
    assert scraped[times.format('bucket{le="0.005",')] == 1
    assert scraped[times.format('bucket{le="+Inf",')] == 2
    assert scraped[times.format("sum{")] == pytest.approx(0.303)


@pytest.mark.parametrize(
    "target",
    [
        schema.Target(name="y", task="binary", classes=("no", "yes")),
        schema.Target(name="y", task="multiclass", classes=("a", "b", "c")),
        schema.Target(name="y", task="regression"),
    ],
)
def test_a_tasks_outcomes_are_those_of_its_answers(target: schema.Target) -> None:
    task, random = tasks.of(target), np.random.default_rng(0)
    scale = {"mean": 0.5, "deviation": 0.25}
    outputs = random.random((200, task.width)) if target.classes else random.normal(0.5, 0.3, 200)
    one_by_one = [task.outcome(answer, scale) for answer in task.answers(outputs)]
    counted = task.outcome_counts(outputs, scale)
    assert counted == {name: one_by_one.count(name) for name in set(one_by_one)}
    confidence = task.confidence(outputs)
    if confidence is not None:
        said = [answer["probability"] for answer in task.answers(outputs)]
        assert confidence.tolist() == said
