"""The HTTP server of one bundle."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib import metadata
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from miko_clf.errors import MikoError
from miko_clf.serve import schemas
from miko_clf.serve.batching import ScoringService, WarmUpCallback
from miko_clf.serve.engine import Engine
from miko_clf.serve.middleware import RequestMiddleware, make_error_response

_DRAIN_SECONDS = 25  # seconds that requests under way have after SIGTERM
_ERROR_STATUSES = (400, 413, 415, 422, 429, 500, 503, 504)


def make_app(
    engine: Engine,
    *,
    warmed: WarmUpCallback = lambda error: None,
    stopping: Callable[[], bool] = lambda: False,
) -> FastAPI:
    """Return the application that serves a bundle.

    It is warmed up once the application has started, and only then ready. `warmed` hears of the
    outcome. Where `stopping` is true nothing new is accepted.
    """
    service = ScoringService(engine, stopping)

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
    app.add_middleware(RequestMiddleware)
    app.add_exception_handler(HTTPException, _answer_routing_error)
    _add_routes(app, service)
    # To the OpenAPI description, the request that the route reads for itself.
    _, models = models_json_schema(
        [(schemas.ScoreRequest, "validation")], ref_template="#/components/schemas/{model}"
    )
    app.openapi()["components"]["schemas"] |= models["$defs"]
    return app


def serve_bundle(engine: Engine, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve a bundle until SIGTERM or SIGINT, then finish the requests under way and return.

    Port 0 takes a free one. Raises `MikoError` where the address cannot be used or the graph does
    not compute.
    """
    listener = _open_listener(host, port)
    failures: list[Exception] = []

    def warmed(error: Exception | None) -> None:
        if error is not None:
            failures.append(error)
            server.should_exit = True
            return
        address = f"http://[{host}]" if ":" in host else f"http://{host}"
        place = f"{address}:{listener.getsockname()[1]}"
        print(f"serving {engine.bundle.path} at {place} on {engine.provider}", flush=True)

    with listener:
        app = make_app(engine, warmed=warmed, stopping=lambda: server.should_exit)
        config = uvicorn.Config(
            app,
            workers=1,
            lifespan="on",
            ws="none",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=_DRAIN_SECONDS,
        )
        server = uvicorn.Server(config)
        for number in (signal.SIGTERM, signal.SIGINT):
            # The server hands a signal on once it has drained.
            signal.signal(number, lambda number, frame: None)
        server.run(sockets=[listener])
    if failures:
        raise failures[0]


def _open_listener(host: str, port: int) -> socket.socket:
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


def _add_routes(app: FastAPI, service: ScoringService) -> None:
    errors: dict[int | str, dict[str, Any]] = {
        status: {"model": schemas.ErrorResponse, "description": HTTPStatus(status).phrase}
        for status in _ERROR_STATUSES
    }
    schema = {"$ref": "#/components/schemas/ScoreRequest"}
    body = {"required": True, "content": {"application/json": {"schema": schema}}}

    @app.post(
        "/v1/score",
        response_model=schemas.ScoreResponse,
        responses=errors,
        openapi_extra={"requestBody": body},
    )
    async def score(request: Request) -> Response:
        """Score up to 32 posts."""
        scores = await service.score(request)
        return Response(scores.model_dump_json(), media_type="application/json")

    @app.get("/health/live")
    async def live() -> schemas.HealthResponse:
        """Say that the process answers."""
        return schemas.HealthResponse(status="live")

    @app.get("/health/ready", responses={503: errors[503]})
    async def ready() -> schemas.HealthResponse:
        """Say that posts can be scored."""
        service.check_ready()
        return schemas.HealthResponse(status="ready")


async def _answer_routing_error(request: Request, error: Exception) -> Response:
    """Answer for an address or a method that there is not."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    answer = schemas.RequestError(status, status.phrase.lower().replace(" ", "_"), status.phrase)
    return make_error_response(answer, request.state.request_id)
