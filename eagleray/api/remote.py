"""A client of an endpoint, wherever it runs: tables in, tables out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eagleray import errors

if TYPE_CHECKING:
    import pandas as pd
    import urllib3

ARROW = "application/vnd.apache.arrow.stream"
ROWS = 10_000
"""Rows of one request; an endpoint takes no more."""
_LONGEST_WAIT_S = 30.0


class Client:
    """Asks one endpoint; safe to use from several threads, which share its connections.

    Attributes:
        url: of the endpoint, without a path.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 30.0,
        retries: int = 3,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """A request takes at most `timeout_s`, and is repeated `retries` times.

        It is repeated after a 503, when `Retry-After` says, and after a connection that failed: a
        prediction changes nothing. `headers` go with each request.
        """
        import urllib3

        if not url.startswith(("http://", "https://")):
            raise errors.UserError(f"a URL starts with http:// or https://, but got {url!r}")
        self.url = url.rstrip("/")
        self._timeout, self._retries, self._headers = timeout_s, retries, dict(headers or {})
        self._pool = urllib3.PoolManager(maxsize=16, retries=False)

    def predict(
        self, rows: pd.DataFrame | Sequence[Mapping[str, Any]], *, explain: bool = False
    ) -> pd.DataFrame:
        """The endpoint's answer for each row, in order.

        Args:
            rows: a column for each of the model's columns; values as in the training file.
            explain: also how much each column contributes to the prediction, for some 100 rows.

        Raises:
            RequestError: the endpoint refuses the rows, and names the field.
            ServingError: it fails, or cannot be reached.
        """
        import pandas as pd

        frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
        path = "/predict?explain=true" if explain else "/predict"
        answers = [_table(self._ask("POST", path, body)) for body in _bodies(frame)]
        return pd.concat(answers, ignore_index=True)

    def ready(self) -> bool:
        """Whether the endpoint answers predictions now; False also where it cannot be reached."""
        try:
            return self._once("GET", "/v2/health/ready", None).status == 200
        except errors.ServingError:
            return False

    def metadata(self) -> dict[str, Any]:
        """Name, version, inputs and outputs of the model, as the Open Inference Protocol has them.

        Raises:
            ServingError: the endpoint fails, or cannot be reached.
        """
        model = json.loads(self._ask("GET", "/", None))["model"]
        described: dict[str, Any] = json.loads(self._ask("GET", f"/v2/models/{model}", None))
        return described

    def __repr__(self) -> str:
        return f"<Client of {self.url}>"

    def _ask(self, method: str, path: str, body: bytes | None) -> bytes:
        for left in range(self._retries, -1, -1):
            try:
                response = self._once(method, path, body)
            except errors.ServingError:
                if not left:
                    raise
                continue
            if response.status != 503 or not left:
                break
            time.sleep(_wait_s(response.headers.get("retry-after")))
        if response.status >= 400:
            raise self._error(response)
        return response.data

    def _once(self, method: str, path: str, body: bytes | None) -> urllib3.BaseHTTPResponse:
        import urllib3

        headers = {**self._headers, "accept": ARROW if body else "application/json"}
        if body:
            headers["content-type"] = ARROW
        try:
            return self._pool.request(
                method, self.url + path, body=body, headers=headers, timeout=self._timeout
            )
        except urllib3.exceptions.HTTPError as cause:
            law = f"{self.url} must answer within {self._timeout:g} s"
            raise errors.ServingError(f"{law}, but {cause}") from cause

    def _error(self, response: urllib3.BaseHTTPResponse) -> errors.EagleRayError:
        """The error of a response, with the field if the endpoint names one."""
        try:
            said = json.loads(response.data)["error"]
        except (ValueError, KeyError, TypeError):
            said = response.data[:200].decode(errors="replace")
        if isinstance(said, str):
            said = {"message": said}
        message = f"{self.url}: {said['message']}"
        if response.status >= 500:
            return errors.ServingError(message)
        details = tuple((one["field"], one["message"]) for one in said.get("details") or ())
        status, field = response.status, said.get("field")
        return errors.RequestError(message, field=field, status=status, details=details)


def _bodies(frame: pd.DataFrame) -> Iterator[bytes]:
    """Requests of at most `ROWS` rows; DataError for a column with values of several types."""
    import pyarrow as pa

    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as cause:
        law = "each column must have values of one type"
        raise errors.DataError(f"{law}, but {cause}") from cause
    for start in range(0, max(1, len(table)), ROWS):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.slice(start, ROWS))
        yield sink.getvalue().to_pybytes()


def _table(body: bytes) -> pd.DataFrame:
    import pyarrow as pa

    with pa.ipc.open_stream(body) as reader:
        frame: pd.DataFrame = reader.read_pandas()
    return frame


def _wait_s(retry_after: str | None) -> float:
    """The seconds that a `Retry-After` header asks for, 1 if it names none."""
    try:
        return min(max(float(retry_after or 1), 0.0), _LONGEST_WAIT_S)
    except ValueError:  # a date
        return 1.0
