"""What a winner says of each row of the test part, kept beside it as a Parquet file.

    row          number of the row in the source, from 1
    truth        its class, or its value
    prediction   likewise
    probability  of the predicted class; not of a regression

Legend: B rows, C classes.
"""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from eagleray import schema


def pack(
    target: schema.Target, row_B: np.ndarray, truth_B: np.ndarray, outputs: np.ndarray
) -> bytes:
    """The file's content, rows in the order of the source.

    Args:
        target: the task and its classes.
        row_B: numbers of the rows.
        truth_B: class indices, or values in the target's unit.
        outputs: probabilities (B, C), or values (B,).
    """
    columns = {"row": row_B, "truth": truth_B.astype(float), "prediction": outputs}
    if target.classes:
        classes = np.array(target.classes, object)
        columns |= {"truth": classes[truth_B], "prediction": classes[outputs.argmax(1)]}
        columns["probability"] = outputs.max(1)
    packed = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), packed)
    return packed.getvalue()
