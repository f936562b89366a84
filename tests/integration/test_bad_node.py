"""A node on which workers die, or whose disk is full: its trials are trained on another one."""

import io
from pathlib import Path

import pytest
from rich import console

from ray_jobs import cluster, pipeline, retries
from tests import ray_nodes
from tests.integration.searches.test_search_goes_on import own_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TRIALS, EPOCHS = 6, 3
BAD = """
    import pathlib, ray
    node, bad = ray.get_runtime_context().get_node_id(), pathlib.Path({folder!r}) / 'bad'
    if not bad.exists():
        bad.write_text(node)
    (bad.parent / f'{{time.time()}} {{node}}').touch()
    if bad.read_text() == node:
        {what}
    time.sleep(0.3)
"""
"""The first node that a trial comes to is the bad one."""
FAULTS = {
    "kills": "os.kill(os.getpid(), 9)",
    "has no room on its disk": "open('/dev/full', 'w', buffering=1).write('a line\\n')",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_trials_go_to_another_node_than_the_one_that(fault: str, tmp_path: Path) -> None:
    passes = tmp_path / "passes"
    passes.mkdir()
    bad = BAD.format(folder=str(passes), what=FAULTS[fault])
    settings = {"train.epochs": EPOCHS, "tune.trials": TRIALS, "compute.cpus": 1}
    chosen = own_model(tmp_path, bad, **settings)
    with ray_nodes.joining(2) as nodes, cluster.connected(nodes.address):
        ended = pipeline.run(chosen, console.Console(file=io.StringIO(), width=200))
    assert [one.status for one in ended.trials] == ["finished"] * TRIALS
    assert [one.epoch for one in ended.trials] == [EPOCHS] * TRIALS
    node = (passes / "bad").read_text()
    lost = [one for one in passes.iterdir() if one.name.endswith(node)]
    assert 1 <= len(lost) <= retries.SUSPECT
