"""The description of the HTTP API, as OpenAPI 3.1 has it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, get_args

from ..files.image import FORMAT_NAMES, FORMATS, WRITTEN, media_type
from ..restoration import Task
from ..restoration.enlargement import LARGEST
from ..restoration.purpose import Purpose
from ..version import __version__
from .limits import Limits
from .order import OWN

Json = dict[str, Any]
SUMMARIES: dict[Task, str] = {
    "restore": "Measures what an image needs, and denoises, dejpegs and enlarges it",
    "denoise": "Removes noise",
    "upscale": "Makes an image larger",
    "dejpeg": "Removes JPEG artifacts",
}
ERRORS = {
    400: ("The client left.", "the client left before its upload was complete"),
    401: ("The token is missing or wrong.", "the token is missing or wrong"),
    404: ("There is no such job.", "no such job: it is unknown, was deleted, or was dropped to make room"),
    408: ("The upload came too slowly.", "the upload came too slowly"),
    409: ("The job has no result.", "the job has no result"),
    413: ("Too many bytes or pixels.", "the image has too many pixels"),
    415: ("A form without a file.", "the body is a form without a file"),
    422: ("No image, or options that do not fit.", "sigma 'x' is no noise level"),
    429: ("The queue is full.", "the queue is full; try again later"),
    503: ("There is too little memory.", "the memory of the server is full; try again later"),
    504: ("The work took too long.", "the work took too long"),
}
SIZES = (
    ("size", "4096x", "The size of the result in place of a scale: 4096x2160, 4096x or x2160."),
    ("fit", "3840x2160", "The largest result within a box, in place of a scale."),
)
JOB = {
    "id": "8vWq1Yl0Zr3xT2Aa",
    "task": "denoise",
    "state": "running",
    "progress": 0.5,
    "seconds": 1.204,
}


def document(models: Collection[str], limits: Limits) -> Json:
    """The document; `models` and `limits` are those of the server."""
    paths: dict[str, Json] = {f"/v1/{task}": {"post": _restore(task, models, limits)} for task in SUMMARIES}
    paths["/v1/jobs/{id}"] = {
        "parameters": [_ID],
        "get": _operation("The state of a job", {200: _json("The job.", "Job", JOB)}, 404),
        "delete": _operation("Stops and forgets a job", {204: {"description": "It is gone."}}, 404),
    }
    paths["/v1/jobs/{id}/result"] = {
        "parameters": [_ID],
        "get": _operation("The restored file of a job", {200: _IMAGE}, 404, 409, 422, 503, 504),
    }
    events = {"description": "Server-sent events.", "content": {"text/event-stream": {"schema": _TEXT}}}
    paths["/v1/jobs/{id}/events"] = {
        "parameters": [_ID],
        "get": _operation("The progress of a job, until its end", {200: events}, 404),
    }
    about_png = (
        "An upright PNG file; nlrn-exact is 1 where its numbers are the file's, nlrn-range black and white."
    )
    png = {"description": about_png, "content": {"image/png": {"schema": {}}}}
    view = _operation("A picture of any file that nlrn reads, for display", {200: png}, *_UPLOAD_ERRORS)
    ends = {"type": "string", "examples": ["0,4095"], "description": "Values of black and white."}
    paths["/v1/view"] = {
        "post": view
        | {"parameters": _query([("range", ends), ("numbers", {"enum": ["1"]})]), "requestBody": _body(())}
    }
    figures = {"psnr": 32.86, "ssim": 0.9012, "identical": False}
    scored = {
        "description": "In dB; null if identical.",
        "content": {"application/json": {"example": figures}},
    }
    part = ("region", {"type": "string", "examples": ["0,0,256,256"], "description": "The part that counts."})
    score = _operation("PSNR and SSIM of an image against a clean one", {200: scored}, *_UPLOAD_ERRORS)
    paths["/v1/score"] = {"post": score | {"parameters": _query([part]), "requestBody": _PAIR}}
    anything = {"description": "JSON.", "content": {"application/json": {"schema": {"type": "object"}}}}
    text = {"description": "Text.", "content": {"text/plain": {"schema": _TEXT}}}
    paths["/v1/models"] = {"get": _operation("The models and their speed here", {200: anything})}
    paths["/health"] = {"get": _operation("Whether the server runs", {200: anything}) | {"security": []}}
    paths["/metrics"] = {"get": _operation("Counts, for Prometheus", {200: text})}
    return {
        "openapi": "3.1.0",
        "info": {"title": "nlrn", "version": __version__, "summary": "Image restoration"},
        "servers": [{"url": "."}],
        "paths": paths,
        "security": [{}, {"token": []}],
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Job": _JOB_SCHEMA, "Error": _ERROR_SCHEMA},
        },
    }


_TEXT: Json = {"type": "string"}
_ID: Json = {"name": "id", "in": "path", "required": True, "schema": _TEXT, "example": JOB["id"]}
_IMAGE: Json = {
    "description": "The restored file; the header nlrn-report has model, noise level, time, notes and warnings.",
    "content": {media_type(name): {"schema": {}} for name in WRITTEN},
}
_FILE: Json = {"type": "string", "format": "binary"}
_PAIR: Json = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image", "reference"],
                "properties": {"image": _FILE, "reference": _FILE},
            }
        }
    },
}
_SIGMA: Json = {
    "anyOf": [{"const": "auto"}, {"type": "number", "minimum": 0, "maximum": 255}],
    "examples": [25],
    "description": "The noise level in 8-bit grey levels, auto for white noise; by default nlrn chooses.",
}
_FOR: Json = {
    "enum": list(get_args(Purpose)),
    "description": "The kind of picture, in place of what is measured and of a model.",
}
_STRENGTH: Json = {
    "type": "string",
    "examples": ["0.7", "0.5,1"],
    "default": "1",
    "description": "0 to 1; two numbers are for luma and color.",
}
_SCALE: Json = {
    "type": "number",
    "exclusiveMinimum": 1,
    "maximum": LARGEST,
    "examples": [1.5],
    "description": "How many times larger each side is.",
}
_UPLOAD_ERRORS = (400, 408, 413, 415, 422, 503)
_JOB_SCHEMA: Json = {
    "type": "object",
    "required": ["id", "task", "state", "progress", "seconds"],
    "properties": {
        "id": _TEXT,
        "task": {"enum": list(SUMMARIES)},
        "state": {"enum": ["queued", "running", "done", "failed", "cancelled"]},
        "progress": {"type": "number", "minimum": 0, "maximum": 1},
        "seconds": {"type": "number", "minimum": 0},
        "position": {"type": "integer", "minimum": 0},
        "result": {"type": "object"},
        "error": {"type": "object"},
    },
}
_ERROR_SCHEMA: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["status", "message"],
            "properties": {
                "status": {"type": "integer"},
                "message": _TEXT,
                "expected": _TEXT,
                "got": _TEXT,
            },
        }
    },
}


def _options(task: Task, models: Collection[str]) -> dict[str, Json]:
    """The schemas of the options of a task, each with an example."""
    options: dict[str, Json] = {
        "steps": {"type": "integer", "minimum": 1, "maximum": 1000, "examples": [4]},
        "format": {"enum": list(FORMAT_NAMES), "description": "By default the input's."},
        "quality": {"type": "integer", "minimum": 1, "maximum": 100, "default": 95},
        "region": {
            "type": "string",
            "pattern": r"^\d+,\d+,\d+,\d+$",
            "examples": ["0,0,256,256"],
            "description": "x,y,width,height of the part to restore.",
        },
    }
    own = {
        "model": {"enum": list(models), "description": "By default by task and colour."},
        "sigma": _SIGMA,
        "for": _FOR,
        "strength": _STRENGTH,
        "scale": _SCALE | ({"default": 2} if task == "upscale" else {}),
        **{name: {"type": "string", "examples": [one], "description": about} for name, one, about in SIZES},
    }
    return {name: own[name] for name in OWN[task]} | options


def _restore(task: Task, models: Collection[str], limits: Limits) -> Json:
    options = _options(task, models)
    found = {200: _IMAGE, 202: _json("The job, for Accept: application/json.", "Job", JOB)}
    operation = _operation(SUMMARIES[task], found, *_UPLOAD_ERRORS, 429, 504)
    operation["description"] = (
        f"At most {limits.upload} bytes, {limits.pixels} pixels in the result, {limits.seconds:g} s of work. "
        "Options are in the query, or fields of the form."
    )
    operation["parameters"] = _query(options.items())
    return operation | {"requestBody": _body(options.items())}


def _query(options: Collection[tuple[str, Json]]) -> list[Json]:
    return [{"name": name, "in": "query", "schema": schema} for name, schema in options]


def _body(options: Collection[tuple[str, Json]]) -> Json:
    form = {"type": "object", "required": ["image"], "properties": {"image": _FILE, **dict(options)}}
    raw: Json = {media_type(name): {"schema": {}} for name in FORMATS}
    return {"required": True, "content": {**raw, "multipart/form-data": {"schema": form}}}


def _operation(summary: str, responses: dict[int, Json], *errors: int) -> Json:
    answers = {str(status): answer for status, answer in responses.items()}
    for status in (401, *errors):
        about, message = ERRORS[status]
        answers[str(status)] = _json(about, "Error", {"error": {"status": status, "message": message}})
    return {"summary": summary, "responses": answers}


def _json(about: str, schema: str, example: Json) -> Json:
    content = {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}
    return {"description": about, "content": {"application/json": content}}
