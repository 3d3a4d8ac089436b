"""The HTTP server of one bundle."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib import metadata
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from miko_clf.errors import MikoError
from miko_clf.serve.engine import Engine
from miko_clf.serve.guard import Guard, answer
from miko_clf.serve.service import Service, Warmed
from miko_clf.serve.session import Provider
from miko_clf.serve.wire import ErrorBody, Health, ScoreRequest, ScoreResponse, WireError

DRAIN = 25  # seconds that requests under way have after SIGTERM
_STATUSES = (400, 413, 415, 422, 429, 500, 503, 504)


def make_app(
    path: Path,
    *,
    provider: Provider = "cpu",
    allow_cpu: bool = False,
    threads: int | None = None,
    prior: float | None = None,
    warmed: Warmed = lambda error: None,
    stopping: Callable[[], bool] = lambda: False,
) -> FastAPI:
    """Return the application that serves a bundle.

    The bundle is opened here, so its errors are raised here; it is warmed up once the
    application has started, and only then ready. `prior` is the share of the positive class to
    correct scores for. `warmed` hears of the outcome. Where `stopping` is true nothing new is
    accepted.
    """
    engine = Engine.open(path, provider=provider, allow_cpu=allow_cpu, threads=threads, prior=prior)
    service = Service(engine, stopping)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        service.pool.submit(service.warm_up, warmed)
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="miko-clf",
        version=metadata.version("miko-clf"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.add_middleware(Guard)
    app.add_exception_handler(HTTPException, _routing_failed)
    _add_routes(app, service)
    _describe_request(app)
    return app


def serve(
    path: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    provider: Provider = "cpu",
    allow_cpu: bool = False,
    threads: int | None = None,
    prior: float | None = None,
) -> None:
    """Serve a bundle until SIGTERM or SIGINT, then finish the requests under way and return.

    Port 0 takes a free one. Raises `MikoError` where the bundle, the provider or the address
    cannot be used.
    """
    listener = _listen(host, port)
    failures: list[Exception] = []

    def warmed(error: Exception | None) -> None:
        if error is not None:
            failures.append(error)
            server.should_exit = True
            return
        address = f"http://[{host}]" if ":" in host else f"http://{host}"
        place = f"{address}:{listener.getsockname()[1]}"
        print(f"serving {path} at {place} on {app.state.service.engine.provider}", flush=True)

    with listener:
        app = make_app(
            path,
            provider=provider,
            allow_cpu=allow_cpu,
            threads=threads,
            prior=prior,
            warmed=warmed,
            stopping=lambda: server.should_exit,
        )
        server = uvicorn.Server(_config(app))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _heard)  # the server hands a signal on once it has drained
        server.run(sockets=[listener])
    if failures:
        raise failures[0]


def _heard(number: int, frame: Any) -> None:
    """Let a signal pass that was acted on already."""


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65_535:
        raise MikoError(f"port {port} cannot be; choose one from 0 (any free one) to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise MikoError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    # Connections inherit it; without it each answer waits 40 ms for an acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        workers=1,
        lifespan="on",
        ws="none",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=DRAIN,
    )


def _add_routes(app: FastAPI, service: Service) -> None:
    errors: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody, "description": HTTPStatus(status).phrase}
        for status in _STATUSES
    }
    schema = {"$ref": "#/components/schemas/ScoreRequest"}
    body = {"required": True, "content": {"application/json": {"schema": schema}}}

    @app.post(
        "/v1/score",
        response_model=ScoreResponse,
        responses=errors,
        openapi_extra={"requestBody": body},
    )
    async def score(request: Request) -> Response:
        """Score up to 32 posts."""
        found = await service.score(request)
        return Response(found.model_dump_json(), media_type="application/json")

    @app.get("/health/live")
    async def live() -> Health:
        """Say that the process answers."""
        return Health(status="live")

    @app.get("/health/ready", responses={503: errors[503]})
    async def ready() -> Health:
        """Say that posts can be scored."""
        service.check_ready()
        return Health(status="ready")


def _describe_request(app: FastAPI) -> None:
    """Add to the OpenAPI description the request that the route reads for itself."""
    _, models = models_json_schema(
        [(ScoreRequest, "validation")], ref_template="#/components/schemas/{model}"
    )
    app.openapi()["components"]["schemas"] |= models["$defs"]


async def _routing_failed(request: Request, error: Exception) -> Response:
    """Answer for an address or a method that there is not."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    code = status.phrase.lower().replace(" ", "_")
    return answer(WireError(status, code, status.phrase), request.state.request_id)
