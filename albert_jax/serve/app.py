"""The web application: routes, limits, errors and metrics."""

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route as Path

from albert_jax.predict.finetuned import FinetunedModel
from albert_jax.serve.batching import Batcher, OverloadedError
from albert_jax.serve.routes import Route, routes_of

_LOG = logging.getLogger(__name__)
_LONGEST = 300  # letters of a message
_LOOK_EVERY = 0.2  # seconds between looks whether a client is still there
_CLOSED = 499  # the client has gone; not sent to anyone, only counted
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Limits:
    """What one request and all together may take.

    Attributes:
      max_batch: texts that are computed together.
      max_wait_ms: milliseconds that the first request of a batch waits for others.
      max_waiting: requests that may wait; more are refused with 503.
      max_bytes: bytes of a request; longer ones are refused with 413.
      max_texts: texts of a request.
      timeout: seconds until a request is given up with 504.
    """

    max_batch: int = 32
    max_wait_ms: float = 0.0
    max_waiting: int = 256
    max_bytes: int = 1_000_000
    max_texts: int = 256
    timeout: float = 30.0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          ValueError: if one is out of range.
        """
        for name, value in vars(self).items():
            least = 0 if name == "max_wait_ms" else 1
            if not least <= value < math.inf:
                raise ValueError(f"--{name}={value} must be at least {least}, and finite")


class Metrics:
    """What `/metrics` reports, in Prometheus's form."""

    def __init__(self):
        """Starts every count at 0."""
        registry = self._registry = CollectorRegistry()
        names = {"labelnames": ("route", "status"), "registry": registry}
        self.requests = Counter("albert_requests", "Requests answered.", **names)
        self.seconds = Histogram(
            "albert_request_seconds",
            "Seconds from a request to its answer.",
            labelnames=("route",),
            registry=registry,
            buckets=_SECONDS,
        )
        self.batches = Histogram(
            "albert_batch_texts", "Texts computed together.", registry=registry, buckets=_SIZES
        )
        self.waiting = Gauge("albert_requests_waiting", "Requests that wait.", registry=registry)

    def text(self) -> bytes:
        """Returns all values."""
        return generate_latest(self._registry)


class Service:
    """A model's routes over HTTP."""

    def __init__(self, model: FinetunedModel, limits: Limits):
        """Makes a batcher for the model."""
        self._model, self._limits, self.metrics = model, limits, Metrics()
        self.routes = routes_of(model)
        self._batcher = Batcher(
            self._run,
            limits.max_batch,
            limits.max_wait_ms / 1000,
            limits.max_waiting,
            self.metrics.batches.observe,
        )

    def app(self, hosts: Sequence[str] = ("*",)) -> Starlette:
        """Returns the application, for requests to these names of the host."""
        paths = [
            Path("/", self._page),
            Path("/health", self._health),
            Path("/metrics", self._show_metrics),
            *(Path(f"/{name}", self._endpoint(name), methods=["POST"]) for name in self.routes),
        ]
        handlers = {HTTPException: self._refused, Exception: self._failed}
        trusted = Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
        return Starlette(
            routes=paths,
            middleware=[trusted],
            lifespan=self._working,
            exception_handlers=handlers,
        )

    def _run(self, requests: Sequence[tuple[Route, dict[str, Any]]]) -> list[Any]:
        """Returns a result for each request; they may be of several routes."""
        results: list[Any] = [None] * len(requests)
        for route in self.routes.values():
            members = [i for i, (its, _) in enumerate(requests) if its is route]
            found = route.run(self._model, [requests[i][1] for i in members])
            for i, result in zip(members, found, strict=True):
                results[i] = result
        return results

    @asynccontextmanager
    async def _working(self, app: Starlette) -> AsyncIterator[None]:
        self._work = asyncio.create_task(self._batcher.work())
        yield
        self._work.cancel()

    def _endpoint(self, name: str) -> Any:
        route = self.routes[name]

        async def answer(request: Request) -> Response:
            begin, status = time.perf_counter(), 500
            try:
                response = JSONResponse(await self._answer(route, request))
                status = response.status_code
                return response
            except HTTPException as error:
                status = error.status_code
                raise
            except ClientDisconnect:
                status = _CLOSED
                return Response(status_code=_CLOSED)
            finally:
                self.metrics.requests.labels(name, status).inc()
                self.metrics.seconds.labels(name).observe(time.perf_counter() - begin)

        return answer

    async def _answer(self, route: Route, request: Request) -> Any:
        try:
            async with asyncio.timeout(self._limits.timeout):
                fields = route.parse(await self._json(request))
                size = route.size(fields)
                if size > self._limits.max_texts:
                    most = self._limits.max_texts
                    raise ValueError(f"{size} texts in a request; send at most {most} at a time")
                return await self._unless_gone(
                    request, self._batcher.submit((route, fields), size)
                )
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        except OverloadedError:
            headers = {"Retry-After": "1"}
            raise HTTPException(503, "too many requests wait; try again", headers) from None
        except TimeoutError:
            seconds = self._limits.timeout
            raise HTTPException(504, f"no answer within {seconds:g} seconds") from None

    async def _unless_gone(self, request: Request, answer: Coroutine[Any, Any, Any]) -> Any:
        """Returns an answer; gives it up when the client leaves."""
        task = asyncio.create_task(answer)
        try:
            while not task.done():
                await asyncio.wait([task], timeout=_LOOK_EVERY)
                if not task.done() and await request.is_disconnected():
                    raise ClientDisconnect
            return task.result()
        finally:
            task.cancel()

    async def _json(self, request: Request) -> Any:
        try:
            return json.loads((await self._body(request)).decode("utf-8"))
        except (ValueError, RecursionError):
            raise HTTPException(400, "the request is not JSON in UTF-8") from None

    async def _body(self, request: Request) -> bytes:
        """Returns what was sent, read no further than is allowed."""
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._limits.max_bytes:
                most = self._limits.max_bytes
                raise HTTPException(413, f"the request is longer than {most:,} bytes")
        return body

    async def _refused(self, request: Request, error: Any) -> Response:
        detail = str(error.detail)
        if error.status_code == 404:
            paths = ", ".join(f"/{name}" for name in (*self.routes, "health", "metrics"))
            detail = f"no {request.url.path}; there are / and {paths}"
        elif error.status_code == 405:
            detail = f"{request.method} is not for {request.url.path}"
        if len(detail) > _LONGEST:  # it may quote the request
            detail = f"{detail[:_LONGEST]} …"
        return JSONResponse({"error": detail}, error.status_code, error.headers)

    async def _failed(self, request: Request, error: Exception) -> Response:
        _LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return JSONResponse({"error": "internal error; the server's log has it"}, 500)

    async def _page(self, request: Request) -> Response:
        page = resources.files("albert_jax.serve") / "page.html"
        return HTMLResponse(page.read_text("utf-8"))

    async def _health(self, request: Request) -> Response:
        model, works = self._model, not self._work.done()
        return JSONResponse(
            {
                "status": "ok" if works else "the model's thread has ended; start again",
                "kind": model.kind,
                "labels": list(model.labels),
                "routes": {
                    name: {field: one.described() for field, one in route.fields.items()}
                    for name, route in self.routes.items()
                },
            },
            200 if works else 503,
        )

    async def _show_metrics(self, request: Request) -> Response:
        self.metrics.waiting.set(self._batcher.waiting)
        return Response(self.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})
