"""What is answered to GET: state, documentation, metrics, and the metadata of protocols."""

import asyncio
import functools
from collections.abc import Awaitable, Callable

import msgspec

from eagleray import errors
from serving import catalog, docs, guard, metrics
from serving.page import form, live
from serving.predictor import Predictor
from serving.responses import Response, as_json, error, not_loaded, wrong_method
from serving.wire import inference_pages


class Pages:
    """The pages of one model.

    `predictor` returns the version that serves, if there is one; `checks` what guards the pages.
    """

    def __init__(
        self,
        name: str,
        observer: metrics.Metrics,
        predictor: Callable[[], Predictor | None],
        listed: catalog.Catalog,
        checks: Callable[[], guard.Guard | None],
    ) -> None:
        self._name, self._metrics, self._predictor = name, observer, predictor
        self._checks, self.live = checks, live.Live(observer)
        self._form: tuple[Predictor, Response] | None = None
        model = f"/v1/models/{name}"
        pages: dict[str, Callable[[], Awaitable[Response]]] = {
            "/": self._index,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._exposition,
            "/live": self._live,
            "/openapi.json": self._openapi,
            "/v1/models": listed.models,
            "/v2": self._v2_server,
            "/v2/health/live": self._v2_live,
            "/v2/health/ready": self._v2_ready,
        }
        models = dict.fromkeys((model, f"{model}/"), self._model)
        self.routes = {path: path.strip("/") or "index" for path in pages}
        self.routes |= dict.fromkeys(models, "model")
        files = {path: functools.partial(_file, path) for path in docs.CONTENT_TYPES}
        self._pages = pages | models | files
        self._index_of = {"/v2/repository/index": listed.index}

    @property
    def number(self) -> int | None:
        loaded = self._predictor()
        return loaded.number if loaded else None

    async def get(self, path: str, method: str, headers: dict[bytes, bytes]) -> Response:
        """Return the page at a path; RequestError if it names another model or version."""
        if (index := self._index_of.get(path)) is not None:  # asked for by POST
            return await index() if method == "POST" else wrong_method(b"POST")
        page = self._pages.get(path)
        if page is None and (asked := inference_pages.target(path)) is not None:
            inference_pages.check(asked, self._name, self.number)
            page = self._v2_ready if asked.action == "ready" else self._v2_model
        if page is None and path.startswith("/v1/models/"):
            name = path.removeprefix("/v1/models/").rstrip("/").partition(":")[0]
            return error(404, f"the model served here is {self._name}, but got {name!r}")
        if page is None:
            return error(404, f"no page is at {path!r}; see /docs")
        if method not in ("GET", "HEAD"):
            return wrong_method(b"GET, HEAD")
        return await (self._page() if form.wanted(path, headers) else page())

    async def _index(self) -> Response:
        version, predict = self.number, ["/predict", f"/v1/models/{self._name}:predict"]
        links = ["/docs", "/openapi.json", "/healthz", "/readyz", "/metrics", "/live"]
        found = {"model": self._name, "version": version, "predict": predict, "links": links}
        return as_json(200, (b"vary", b"accept"), **found)

    async def _page(self) -> Response:
        loaded = self._loaded()
        if self._form is None or self._form[0] is not loaded:
            self._form = loaded, await asyncio.to_thread(form.made, loaded.bundle)
        return self._form[1]

    async def _healthz(self) -> Response:
        loaded = self._predictor()
        failure = loaded.failure if loaded else None
        if failure is not None:
            return as_json(503, status="failed", why=failure)
        return as_json(200, status="alive")

    async def _model(self) -> Response:
        """Answer as KServe's V1 protocol does: name and readiness, with the version."""
        loaded = self._predictor()
        ready = loaded is not None and loaded.failure is None
        version = loaded.number if loaded else None
        return as_json(200 if ready else 503, name=self._name, version=version, ready=ready)

    async def _v2_server(self) -> Response:
        return as_json(200, **inference_pages.SERVER)

    async def _v2_live(self) -> Response:
        loaded = self._predictor()
        if loaded is not None and loaded.failure is not None:
            raise errors.RequestError(loaded.failure, status=503)
        return as_json(200, live=True)

    async def _v2_ready(self) -> Response:
        self._loaded()
        await self._v2_live()
        return as_json(200, name=self._name, ready=True)

    async def _v2_model(self) -> Response:
        return Response(200, msgspec.json.encode(self._loaded().metadata()))

    async def _readyz(self) -> Response:
        loaded = self._predictor()
        if loaded is None:
            return as_json(503, status="loading", model=self._name)
        described = {"model": self._name, "version": loaded.number}
        return as_json(200, status="ready", **described, golden_rows=loaded.golden_rows)

    async def _exposition(self) -> Response:
        text = await asyncio.to_thread(self._metrics.exposition)
        return Response(200, text, metrics.CONTENT_TYPE.encode())

    async def _live(self) -> Response:
        return as_json(200, (b"cache-control", b"no-store"), **await self.live.look())

    async def _openapi(self) -> Response:
        checks = self._checks()
        keys = checks is not None and checks.asks_for_keys
        return Response(200, self._loaded().document(keys=keys))

    def _loaded(self) -> Predictor:
        loaded = self._predictor()
        if loaded is None:
            raise not_loaded()
        return loaded


async def _file(path: str) -> Response:
    return Response(200, docs.content(path), docs.CONTENT_TYPES[path])
