"""A client of an endpoint, wherever it runs: tables in, tables out."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from eagleray import errors

if TYPE_CHECKING:
    import pandas as pd
    import urllib3

ARROW = "application/vnd.apache.arrow.stream"
JSON = "application/json"
ROWS = 10_000
"""Rows of one request; an endpoint takes no more."""
LABELS = 10_000
"""Labels of one request; an endpoint takes no more."""
_LONGEST_WAIT_S = 30.0


@dataclass(frozen=True)
class Label:
    """What was true of one row: `predicted` and `label`, or a `reward`.

    Attributes:
        request_id: of the request that had the row.
        version: of the model that answered it.
        row: of the request, from 0.
        predicted: the answer's `label` or `value`.
        label: what was true; a class, or a number.
        reward: in place of both, how right the answer was, from 0 to 1.
    """

    request_id: str
    version: int
    row: int = 0
    predicted: str | bool | float | None = None
    label: str | bool | float | None = None
    reward: float | None = None


class Counted(NamedTuple):
    """What an endpoint did with labels, in requests."""

    counted: int
    repeated: int  # the replica has counted them before
    ignored: int  # of versions that do not answer now


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
        self,
        rows: pd.DataFrame | Sequence[Mapping[str, Any]],
        *,
        explain: bool = False,
        identify: bool = False,
    ) -> pd.DataFrame:
        """The endpoint's answer for each row, in order.

        Args:
            rows: a column for each of the model's columns; values as in the training file.
            explain: also how much each column contributes to the prediction, for some 100 rows.
            identify: also `request_id`, `version` and `row`, by which `label` knows a row.

        Raises:
            RequestError: the endpoint refuses the rows, and names the field.
            ServingError: it fails, or cannot be reached.
        """
        import pandas as pd

        frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
        path = "/predict?explain=true" if explain else "/predict"
        asked = (self._ask("POST", path, body, ARROW) for body in _bodies(frame))
        answers = [_identified(one) if identify else _table(one.data) for one in asked]
        return pd.concat(answers, ignore_index=True)

    def label(self, labels: Iterable[Label]) -> Counted:
        """Report what was true of rows that the endpoint has predicted; for rollouts and metrics.

        A request counts once, with the labels of its rows that come in one call. A connection that
        fails is not tried again, since another replica would count its labels again.

        Raises:
            RequestError: a label is invalid; `field` names it. No other label counts that was sent
                with it, of which there are 10,000 at most.
            ServingError: the endpoint fails, or cannot be reached.
        """
        path, counted = None, Counted(0, 0, 0)
        for one in _sent(labels):
            path = path or f"/v1/models/{self._model()}:label"
            try:
                told = json.loads(self._ask("POST", path, one.body(), JSON, repeats=False).data)
            except errors.RequestError as cause:
                raise one.relocated(cause) from cause
            counted = Counted(*(before + told[name] for name, before in counted._asdict().items()))
        return counted

    def ready(self) -> bool:
        """Whether the endpoint answers predictions now; False also where it cannot be reached."""
        try:
            return self._once("GET", "/v2/health/ready").status == 200
        except errors.ServingError:
            return False

    def metadata(self) -> dict[str, Any]:
        """Name, version, inputs and outputs of the model, as the Open Inference Protocol has them.

        Raises:
            ServingError: the endpoint fails, or cannot be reached.
        """
        described: dict[str, Any] = json.loads(self._ask("GET", f"/v2/models/{self._model()}").data)
        return described

    def __repr__(self) -> str:
        return f"<Client of {self.url}>"

    def _model(self) -> str:
        return str(json.loads(self._ask("GET", "/").data)["model"])

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str = JSON,
        *,
        repeats: bool = True,
    ) -> urllib3.BaseHTTPResponse:
        """An answer; `repeats` says whether a request whose connection failed may be sent again."""
        for left in range(self._retries, -1, -1):
            try:
                response = self._once(method, path, body, content_type)
            except errors.ServingError:
                if not left or not repeats:
                    raise
                continue
            if response.status != 503 or not left:
                break
            time.sleep(_wait_s(response.headers.get("retry-after")))
        if response.status >= 400:
            raise self._error(response)
        return response

    def _once(
        self, method: str, path: str, body: bytes | None = None, content_type: str = JSON
    ) -> urllib3.BaseHTTPResponse:
        import urllib3

        headers = {**self._headers, "accept": content_type}
        if body:
            headers["content-type"] = content_type
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


class _Sent(NamedTuple):
    """Labels of a body, and the place of each among those of the caller."""

    labels: list[dict[str, Any]]
    places: list[int]

    def body(self) -> bytes:
        def plain(scalar: Any) -> Any:
            return scalar.item()  # of NumPy, as tables give them

        return json.dumps({"labels": self.labels}, default=plain).encode()

    def relocated(self, cause: errors.RequestError) -> errors.RequestError:
        """An error about a label of the body, with the caller's place of it."""
        found = re.match(r"labels\[(\d+)\]", cause.field or "")
        if found is None:
            return cause
        field = f"labels[{self.places[int(found[1])]}]{(cause.field or '')[found.end() :]}"
        return errors.RequestError(str(cause), field=field, status=cause.status)


def _sent(labels: Iterable[Label]) -> Iterator[_Sent]:
    """Bodies of at most `LABELS` labels; those of a request stay together."""
    requests: dict[tuple[str, int], _Sent] = {}
    for place, one in enumerate(labels):
        fields = dataclasses.asdict(one).items()
        of = requests.setdefault((one.request_id, one.version), _Sent([], []))
        of.labels.append({name: value for name, value in fields if value is not None})
        of.places.append(place)
    held = _Sent([], [])
    for of in requests.values():
        if held.labels and len(held.labels) + len(of.labels) > LABELS:
            yield held
            held = _Sent([], [])
        held = _Sent(held.labels + of.labels, held.places + of.places)
    if held.labels:
        yield held


def _identified(response: urllib3.BaseHTTPResponse) -> pd.DataFrame:
    """The answers of a request, each with what `label` is told of it."""
    frame, headers = _table(response.data), response.headers
    return frame.assign(
        request_id=headers["x-request-id"],
        version=int(headers["x-eagleray-version"]),
        row=range(len(frame)),
    )


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
