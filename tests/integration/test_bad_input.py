"""What a user gets wrong before compute is spent: one line, exit code 2, nothing written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from eagleray import cli

ROWS = "".join(f"{row % 7},{'ab'[row % 2]},{'yes' if row % 3 else 'no'}\n" for row in range(60))
TABLE = "size,kind,sold\n" + ROWS
FILE = "name: shop\ndata: {source: shop.csv, target: sold}\n"

TABLES = {
    "empty file": ("", "shop.csv"),
    "header only": ("size,kind,sold\n", "at least one row is needed"),
    "target absent": (TABLE.replace("sold", "bought"), "sold"),
    "one class only": (TABLE.replace("no", "yes"), "sold"),
    "duplicate column names": (TABLE.replace("kind", "size"), "got 'size' twice"),
    "no row has a target": ("size,kind,sold\n" + "1,a,\n" * 60, "sold"),
    "no column but the target": ("sold\n" + "yes\nno\n" * 30, "an input column is needed"),
    "every column empty": ("size,kind,sold\n" + ",,yes\n,,no\n" * 30, "input column"),
    "a class of one row": (TABLE + "1,a,maybe\n", "maybe"),
    "not a table": ("\x00\x01\x02" * 50, "shop.csv"),
}
SPECS = {
    "unknown key": (FILE + "trian: {lr: 0.1}\n", "did you mean train"),
    "wrong type": (FILE + "train: {epochs: many}\n", "train.epochs"),
    "impossible range": (FILE + "train: {lr: {uniform: [2, 1]}}\n", "low < high"),
    "missing source": (FILE.replace("shop.csv", "shp.csv"), "did you mean"),
    "broken YAML": ("name: [\n", "shop.yaml:"),
    "not built yet": (FILE + "monitor: {capture: 0.1}\n", "not built yet"),
    "metric of another task": (FILE + "tune: {metric: rmse}\n", "for binary, but got rmse"),
    "a module that fails": (FILE + "model: {type: 'broken:net'}\n", "broken.py:1: broken:net: "),
    "a module that is absent": (FILE + "model: {type: 'brokn:net'}\n", "did you mean 'broken'"),
    "no such set": (FILE.replace("shop.csv", "'dataset:digit'"), "did you mean 'digits'"),
    "an image model without images": (FILE + "model: {type: image}\n", "image"),
    "a loss of another task": (FILE + "train: {loss: mse}\n", "one of cross_entropy"),
    "positive class absent": (FILE.replace("sold}", "sold, positive: maybe}"), "maybe"),
}
CASES = {case: (table, FILE, law) for case, (table, law) in TABLES.items()} | {
    case: (TABLE, spec, law) for case, (spec, law) in SPECS.items()
}


def run(folder: Path, table: str, spec: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What `eagleray run` says of it; storage must stay empty."""
    (folder / "storage").mkdir()
    (folder / "shop.csv").write_text(table)
    (folder / "broken.py").write_text("1 / 0\n")
    (folder / "shop.yaml").write_text(spec + f"storage: file://{folder}/storage\n")
    code = cli.main(["run", str(folder / "shop.yaml")])
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert not list((folder / "storage").iterdir())
    return said.err


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_learned_from_is_refused_in_one_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, spec, law = CASES[case]
    said = run(tmp_path, table, spec, capsys)
    assert law in said
    assert said.count("\n") == 1
    assert "Traceback" not in said


def test_all_problems_of_a_file_are_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = run(tmp_path, TABLE, FILE + "train: {lr: -1, epochs: 0}\nmodle: {}\n", capsys)
    assert [line.split(": ")[1] for line in said.splitlines()] == [
        "train.lr",
        "train.epochs",
        "modle",
    ]


@pytest.mark.parametrize(
    ("uri", "law"),
    [
        ("file:///nowhere/at/all", "mkdir -p"),
        ("s3://eagleray", "eagleray local up"),
        ("gs://bucket", "must be s3://"),
    ],
)
def test_a_storage_that_is_not_there_is_named(
    uri: str,
    law: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EAGLERAY_HOME", str(tmp_path))
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "shop.csv").write_text(TABLE)
    (tmp_path / "shop.yaml").write_text(FILE)
    code = cli.main(["run", str(tmp_path / "shop.yaml"), "--set", f"storage={uri}"])
    said = capsys.readouterr().err
    assert code in (1, 2)
    assert law in said
    assert said.count("\n") == 1


def test_ray_that_does_not_start_is_told_as_a_failure_of_the_cluster() -> None:
    code = (
        "from eagleray import ray_compat\n"
        "with ray_compat.connected(None, object_store_memory=1): pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "errors.ClusterError: Ray on this machine: must be ready, but" in done.stderr


def test_data_that_have_no_room_in_memory_or_on_the_disk_are_told_as_such() -> None:
    code = (
        "import numpy as np\n"
        "from eagleray import ray_compat\n"
        "from ray_jobs import tuning\n"
        "full = {'local_fs_capacity_threshold': 0.001}\n"
        "room = {'object_store_memory': 80 << 20, 'num_cpus': 1}\n"
        "with ray_compat.connected(None, **room, _system_config=full):\n"
        "    tuning._put(np.zeros(200 << 20, np.uint8))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    law = "errors.ClusterError: .*: Ray's object store must have room for the data, on disk if not"
    assert re.search(law, done.stderr), done.stderr
