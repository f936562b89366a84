"""The whole stack on a GPU: a model is searched there, and answers there in each precision."""

import subprocess
import sys
from pathlib import Path

from serving import environment

FILE = """
name: tumours
data: {{source: dataset:breast_cancer, target: target, positive: malignant}}
model: {{type: mlp, hidden: [32], dropout: 0.0}}
train: {{lr: {{loguniform: [1.0e-3, 1.0e-1]}}, epochs: 4}}
tune: {{trials: 4}}
compute: {{gpus: 0.5, cpus: 1}}
storage: {storage}
"""
SCRIPT = """
import eagleray
from sklearn.datasets import load_breast_cancer

experiment = eagleray.load("tumours.yaml")
result = experiment.run()
assert set(result.leaderboard["status"]) <= {{"finished", "stopped"}}, result.leaderboard
frame = load_breast_cancer(as_frame=True).data.head(200)
on_cpu = eagleray.models(experiment.storage)["tumours"].predict(frame)["probability of malignant"]
for precision in ("fp32", "fp16", "bf16"):
    options = {{"gpus": 1, "precision": precision, "max_replicas": 1, "port": {port}}}
    with eagleray.serve("tumours", experiment.storage, **options) as endpoint:
        answers = eagleray.Client(endpoint.url, timeout_s=30).predict(frame)
    off = (answers["probability of malignant"] - on_cpu).abs().max()
    print("off by", precision, off)
"""


def test_a_model_is_searched_and_answers_on_the_gpu(tmp_path: Path) -> None:
    (tmp_path / "storage").mkdir()
    storage = (tmp_path / "storage").as_uri()
    (tmp_path / "tumours.yaml").write_text(FILE.format(storage=storage))
    (port,) = environment.free_ports(1)
    (tmp_path / "script.py").write_text(SCRIPT.format(port=port))
    command = [sys.executable, "script.py"]
    run = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr[-8000:]
    lines = [line.split() for line in run.stdout.splitlines() if line.startswith("off by")]
    off = {precision: float(value) for _, _, precision, value in lines}
    assert off["fp32"] < 1e-5 < off["fp16"] < 5e-3, off
    assert off["fp16"] < off["bf16"] < 4e-2, off
