"""The HTTP server: routes of the API and the page."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route

from ..files.images import ImageError, image_size
from ..models.zoo import CLASSICAL, MODELS
from ..restoration import Task
from ..version import __version__
from .counting import Counting
from .engine import Engine
from .guard import Access, Guard
from .jobs import Job, describe
from .limits import Refused, check_pixels
from .metrics import Metrics
from .openapi import document
from .order import OWN, read_order, read_range, read_region
from .page import read_page
from .uploads import Upload, receive
from .work import Result, numbers, score_of, shown

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

log = logging.getLogger(__name__)

# A line now and then, so that nothing between takes the silence of a long step for the end.
EVENT_SECONDS = 10.0
# Bytes of a result that are handed to the connection at a time.
PIECE = 256 << 10
# Pictures that are made ready for display at the same time.
DISPLAYS = 2


def create_app(engine: Engine, access: Access | None = None) -> Guard:
    """The application for an engine, which the caller starts and closes."""
    access = access or Access()
    server = _Server(engine)
    routes: list[BaseRoute] = [
        *(Route(f"/v1/{task}", server.restore, methods=["POST"]) for task in OWN),
        Route("/v1/jobs/{id}", server.job, methods=["GET"]),
        Route("/v1/jobs/{id}", server.delete, methods=["DELETE"]),
        Route("/v1/jobs/{id}/result", server.result, methods=["GET"]),
        Route("/v1/jobs/{id}/events", server.events, methods=["GET"]),
        Route("/v1/view", server.view, methods=["POST"]),
        Route("/v1/score", server.score, methods=["POST"]),
        Route("/v1/models", server.models, methods=["GET"]),
        Route("/health", server.health, methods=["GET"]),
        Route("/metrics", server.metrics_page, methods=["GET"]),
        Route("/openapi.json", server.openapi, methods=["GET"]),
        Route("/", server.page, methods=["GET"]),
        Route("/static/{name}", server.page, methods=["GET"]),
    ]
    app = Starlette(
        routes=[Mount(access.prefix, routes=routes)] if access.prefix else routes,
        exception_handlers={
            Refused: _refused,
            ImageError: _bad_image,
            HTTPException: _http_error,
            Exception: _failure,
        },
    )
    return Guard(Counting(app, server.metrics, routes, access.prefix), access)


class _Server:
    """The endpoints."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.metrics = engine, Metrics()
        self._files = read_page()
        self._displays = asyncio.Semaphore(DISPLAYS)

    async def restore(self, request: Request) -> Response:
        """Takes a job, and answers with it or with its result."""
        task = cast(Task, request.url.path.rpartition("/")[2])
        async with receive(request, self.engine) as upload:
            order = read_order(task, upload.fields, self.engine.models)
            job = self.engine.submit(order, upload.data)
            upload.hand_over()
        if "application/json" in request.headers.get("accept", ""):
            headers = {"location": f"jobs/{job.id}"}
            return JSONResponse(job.as_json(self.engine.position(job)), 202, headers)
        forget = partial(self.engine.forget, job)
        try:
            if await _finished_or_left(job, request):
                return _image(_result_of(job), forget)
        except BaseException:
            forget()
            raise
        forget()
        return Response(status_code=499)  # which nobody reads

    async def job(self, request: Request) -> Response:
        """The state of a job."""
        job = self.engine.job(request.path_params["id"])
        return JSONResponse(job.as_json(self.engine.position(job)))

    async def result(self, request: Request) -> Response:
        """The restored file of a job."""
        return _image(_result_of(self.engine.job(request.path_params["id"])))

    async def delete(self, request: Request) -> Response:
        """Stops and forgets a job."""
        self.engine.forget(self.engine.job(request.path_params["id"]))
        return Response(status_code=204)

    async def events(self, request: Request) -> Response:
        """The changes of a job as server-sent events."""
        job = self.engine.job(request.path_params["id"])

        async def stream() -> AsyncIterator[str]:
            async for changed in _changes(job):
                if changed:
                    name = job.state if job.finished else "progress"
                    yield f"event: {name}\ndata: {json.dumps(job.as_json(self.engine.position(job)))}\n\n"
                else:
                    yield ": still here\n\n"

        return StreamingResponse(
            stream(), media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    async def view(self, request: Request) -> Response:
        """A PNG file of what an image file shows, or with its numbers, for browsers that cannot read it."""
        async with receive(request, self.engine) as upload, self._displays:
            self._check_pixels(upload)
            work: Callable[[bytes], tuple[bytes, dict[str, str]]] = partial(
                shown, ends=read_range(upload.fields.get("range"))
            )
            if upload.fields.get("numbers") == "1":
                work = numbers
            png, headers = await asyncio.to_thread(work, upload.data)
        return Response(png, media_type="image/png", headers=headers)

    async def score(self, request: Request) -> Response:
        """PSNR and SSIM of an image against a clean one."""
        async with receive(request, self.engine, ("image", "reference")) as upload, self._displays:
            self._check_pixels(upload)
            image, reference = upload.files
            region = read_region(upload.fields.get("region"))
            found = await asyncio.to_thread(score_of, image, reference, region)
        return JSONResponse(found.as_json())

    def _check_pixels(self, upload: Upload) -> None:
        for file in upload.files:
            check_pixels(self.engine.limits.pixels, *image_size(file))

    async def models(self, request: Request) -> Response:
        """The models that an order may name."""
        names: dict[str, dict[str, Any]] = {
            name: {"task": entry.task, "channels": entry.channels, "steps": list(entry.steps)}
            for name, entry in MODELS.items()
        }
        names |= {
            name: {"task": entry.task, "channels": None, "steps": []} for name, entry in CLASSICAL.items()
        }
        names |= {name: {"task": None, "channels": None, "steps": []} for name in self.engine.files}
        speeds = [
            {"task": task, "model": model, "steps": steps, "seconds_per_megapixel": round(seconds, 3)}
            for (task, model, steps), seconds in self.engine.speeds.items()
        ]
        return JSONResponse(
            {"models": [{"name": name, **about} for name, about in names.items()], "speeds": speeds}
        )

    async def health(self, request: Request) -> Response:
        """The state of the server."""
        engine = self.engine
        body = {"status": "ok", "version": __version__, "devices": engine.devices}
        return JSONResponse(body | {"waiting": engine.waiting, "running": engine.running})

    async def metrics_page(self, request: Request) -> Response:
        """The counts."""
        return PlainTextResponse(self.metrics.text(self.engine), media_type="text/plain; version=0.0.4")

    async def openapi(self, request: Request) -> Response:
        """The description of the API."""
        return JSONResponse(document(self.engine.models, self.engine.limits))

    async def page(self, request: Request) -> Response:
        """A file of the page; others than those that were read at the start are not there."""
        name = request.path_params.get("name", "index.html")
        if name not in self._files:
            raise HTTPException(404)
        data, media_type, tag = self._files[name]
        headers = {"cache-control": "no-cache", "etag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=media_type, headers=headers)


async def _changes(job: Job) -> AsyncIterator[bool]:
    """Yields True at once and after every change of a job until it is finished, and False now and then."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(event.set)

    job.listen(wake)
    try:
        changed = True
        while True:
            event.clear()
            finished = job.finished
            yield changed
            if finished:
                return
            try:
                async with asyncio.timeout(EVENT_SECONDS):
                    changed = await event.wait()
            except TimeoutError:
                changed = False
    finally:
        job.unlisten(wake)


async def _finished_or_left(job: Job, request: Request) -> bool:
    """Waits for a job; false if the client has left before."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    async def finished() -> None:
        async for _ in _changes(job):
            pass

    tasks = [asyncio.create_task(left()), asyncio.create_task(finished())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return job.finished


def _result_of(job: Job) -> Result:
    """The result of a job.

    Raises:
        Refused: 409 there is none, or the error of the job.
    """
    if job.error is not None:
        raise job.error
    if job.result is None:
        raise Refused(409, "the job has no result", expected="a job that is done", got=job.state)
    return job.result


class _Pieces(Response):
    """An answer in pieces, so that what a slow client has not taken lies in memory only once; then calls `after`."""

    after: Callable[[], None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the pieces, each when there is room for it."""
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            for start in range(0, len(self.body), PIECE):
                more = start + PIECE < len(self.body)
                piece = self.body[start : start + PIECE]
                await send({"type": "http.response.body", "body": piece, "more_body": more})
        finally:
            if self.after is not None:
                self.after()


def _image(result: Result, after: Callable[[], None] | None = None) -> Response:
    suffix = "jpg" if result.format == "JPEG" else result.format.lower()
    headers = {
        "content-disposition": f'attachment; filename="restored.{suffix}"',
        "nlrn-report": json.dumps(describe(result)),
        "cache-control": "no-store",
    }
    response = _Pieces(result.data, media_type=result.media_type, headers=headers)
    response.after = after
    return response


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    headers = {"retry-after": "5"} if error.status in (429, 503) else None
    return JSONResponse(error.as_json(), error.status, headers)


async def _bad_image(request: Request, error: Exception) -> Response:
    return await _refused(request, Refused(422, " ".join(str(error).split())))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = Refused(error.status_code, error.detail).as_json()
    return JSONResponse(body, error.status_code, error.headers)


async def _failure(request: Request, error: Exception) -> Response:
    log.error("a request failed", exc_info=error)
    return await _refused(request, Refused(500, "the server failed; its log says why"))
