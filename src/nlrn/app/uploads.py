"""The body of a request: an image, or a form with one or more; in memory, within the bounds of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser
from starlette.requests import ClientDisconnect, Request

from .engine import Engine
from .limits import Limits, Refused

MULTIPART = "multipart/form-data"
FORMS = (MULTIPART, "application/x-www-form-urlencoded")
# Beside the image itself: the fields of a form and what is between its parts.
FORM_BYTES = 64 << 10
PARTS = 20


class Upload:
    """Images that have arrived, and the options that came with them.

    Args:
        files: their content, counted by the engine.
        fields: options, those of the form over those of the query.
    """

    def __init__(self, engine: Engine, files: Sequence[bytes], fields: dict[str, str]) -> None:
        self.files, self.fields = files, fields
        self._engine, self._ours = engine, True

    @property
    def data(self) -> bytes:
        """The content of the first file."""
        return self.files[0]

    def hand_over(self) -> None:
        """Leaves the bytes to the job, which releases them."""
        self._ours = False

    def close(self) -> None:
        """Lets the bytes go, if they are still ours."""
        if self._ours:
            self._engine.release(sum(map(len, self.files)))
            self._ours = False


@asynccontextmanager
async def receive(
    request: Request, engine: Engine, names: Sequence[str] = ("image",)
) -> AsyncIterator[Upload]:
    """Reads the upload of a request: one image, or as many as there are `names`, in a form with parts of these names.

    Raises:
        Refused: 408 too slow, 413 too long, 415 another kind of form, 422 no image or a broken form, 503 no memory.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == FORMS[1]:
        raise Refused(
            415, "the body is a form without a file", expected=f"an image, or {MULTIPART} with one", got=kind
        )
    if len(names) > 1 and kind != MULTIPART:
        raise Refused(
            415, "the body is no form", expected=f"{MULTIPART} with {' and '.join(names)}", got=kind
        )
    allowed = len(names) * engine.limits.upload + (FORM_BYTES if kind == MULTIPART else 0)
    with _counted(engine) as counter:
        try:
            async with asyncio.timeout(engine.limits.receive_seconds):
                body = await _read(request, allowed, counter, engine.limits)
        except TimeoutError:
            raise Refused(
                408,
                "the upload came too slowly",
                expected=f"all of it within {engine.limits.receive_seconds:g} s",
                got=f"{counter.count} bytes",
            ) from None
        fields, files = dict(request.query_params), [body]
        if kind == MULTIPART:
            files, form = await asyncio.to_thread(_parse, request.headers["content-type"], body, names)
            fields |= form
        del body
        for file in files:
            if not file:
                raise Refused(
                    422, "no image came", expected="an image as the body, or in a form", got="0 bytes"
                )
            if len(file) > engine.limits.upload:
                raise _too_long(engine.limits, len(file))
        counter.shrink(sum(map(len, files)))
        upload = Upload(engine, files, fields)
        counter.count = 0
    try:
        yield upload
    finally:
        upload.close()


class _Counter:
    """Bytes that the engine has counted for a request."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.count = engine, 0

    def grow(self, count: int) -> None:
        self.engine.reserve(count)
        self.count += count

    def shrink(self, to: int) -> None:
        self.engine.release(self.count - to)
        self.count = to


@contextmanager
def _counted(engine: Engine) -> Iterator[_Counter]:
    counter = _Counter(engine)
    try:
        yield counter
    finally:
        counter.shrink(0)


async def _read(request: Request, allowed: int, counter: _Counter, limits: Limits) -> bytes:
    """The body, refused as soon as it is known to be too long."""
    claimed = request.headers.get("content-length", "")
    if claimed.isdigit() and int(claimed) > allowed:
        raise _too_long(limits, int(claimed))
    chunks: list[bytes] = []
    try:
        async for chunk in request.stream():
            counter.grow(len(chunk))
            chunks.append(chunk)
            if counter.count > allowed:
                raise _too_long(limits, counter.count, more=True)
    except ClientDisconnect:
        raise Refused(400, "the client left before its upload was complete") from None
    return b"".join(chunks)


def _too_long(limits: Limits, count: int, *, more: bool = False) -> Refused:
    return Refused(
        413,
        "the upload is too large",
        expected=f"at most {limits.upload} bytes",
        got=f"{count} bytes{' or more' if more else ''}",
    )


def _parse(content_type: str, body: bytes, names: Sequence[str]) -> tuple[list[bytes], dict[str, str]]:
    """The files of a form in the order of their names, of which a single one may have any, and its fields."""
    files: list[tuple[str, bytes]] = []
    fields: dict[str, str] = {}

    def on_file(file: File) -> None:
        file.file_object.seek(0)
        files.append(((file.field_name or b"").decode("utf-8", "replace"), file.file_object.read()))
        file.close()

    def on_field(field: Field) -> None:
        name, value = field.field_name or b"", field.value or b""
        fields[name.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        if len(fields) > PARTS:
            raise FormParserError("too many fields")

    boundary = next(
        (
            value.strip().strip('"')
            for name, _, value in (part.partition("=") for part in content_type.split(";")[1:])
            if name.strip().lower() == "boundary"
        ),
        None,
    )
    try:
        # Beyond the length in `config`, the parser would write a file to the disk.
        config = {"MAX_MEMORY_FILE_SIZE": len(body) + 1}
        parser = FormParser(MULTIPART, on_field, on_file, boundary=boundary, config=config)
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise Refused(422, f"the form is broken ({reason})", expected=f"{MULTIPART} with one file") from error
    if len(names) == 1:
        if len(files) != 1:
            raise Refused(
                422, "a form must have one image", expected="one part with a file name", got=f"{len(files)}"
            )
        return [files[0][1]], fields
    if sorted(name for name, _ in files) != sorted(names):
        got = ", ".join(name[:40] for name, _ in files[:PARTS]) or "none"
        raise Refused(422, "the form has other files", expected=f"files {' and '.join(names)}", got=got)
    return [dict(files)[name] for name in names], fields
