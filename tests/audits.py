"""Tables with and without faults, and what the audit finds in them."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from eagleray import audit, spec
from eagleray.findings import Finding
from ray_jobs.data import prepare

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC).timestamp()


ROWS = 800


def healthy(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Rows in which nothing is wrong: two numbers tell the class, nearly."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(rows, 4)), columns=["a", "b", "c", "d"])
    frame["city"] = rng.choice(["Oslo", "Rome", "Lima"], rows)
    told = 2 * frame.a + frame.b + rng.normal(size=rows) > 0
    return frame.assign(y=np.where(told, "yes", "no"))


def table(folder: Path, frame: pd.DataFrame, **sections: Any) -> audit.Table:
    """The audit's table of a frame, whose experiment sets `sections`."""
    data = {"source": "rows.csv", "target": "y", **sections.pop("data", {})}
    file = folder / "audited.yaml"
    file.write_text(yaml.safe_dump({"name": "audited", "data": data, **sections}))
    experiment = spec.load(file)
    return prepare.audited(experiment, prepare.dataset(experiment, frame), NOW)


def flagged(folder: Path, check: str, frame: pd.DataFrame, **sections: Any) -> list[Finding]:
    """What one check finds."""
    return list(audit.REGISTRY[check](table(folder, frame, **sections)))


def changed(labels: pd.Series, share: float, seed: int = 1) -> tuple[pd.Series, np.ndarray]:
    """Labels of which a share, drawn by chance, is another one; and which rows these are."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(labels), round(share * len(labels)), replace=False)
    known, out = sorted(labels.unique()), labels.copy()
    out.iloc[rows] = [rng.choice([k for k in known if k != labels.iloc[row]]) for row in rows]
    return out, rows


def copied(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(decided=frame.y.map({"no": 7, "yes": 3}))


def patients(groups: int = 60, size: int = 20, *, alike: bool = True) -> pd.DataFrame:
    """Rows of patients: of one they are alike, and so is the class; or each row is its own."""
    rng = np.random.default_rng(6)
    who = np.repeat(np.arange(groups), size)
    rows = rng.normal(size=(len(who), 4))
    body = rng.normal(size=(groups, 4))[who] + 0.1 * rows if alike else rows
    ill = rng.integers(0, 2, groups)[who] == 1 if alike else body[:, 0] + body[:, 1] > 0
    return pd.DataFrame(body, columns=list("abcd")).assign(
        patient=[f"p{one}" for one in who], y=np.where(ill, "ill", "well")
    )
