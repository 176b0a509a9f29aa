"""The HTTP API."""

from __future__ import annotations

import io
import json
import re
import time

import numpy as np
import pytest
from PIL import Image as PillowImage
from slow_work import Slow, wait
from starlette.testclient import TestClient

from nlrn.app import work
from nlrn.app.guard import Access
from nlrn.app.server import create_app
from nlrn.cli import main
from nlrn.evaluation.score import score
from nlrn.files import exif
from nlrn.files.images import Image, encode_image, read_image
from pictures import picture

HOST = "http://localhost:8642"
JSON = {"accept": "application/json"}


def two(format_: str) -> bytes:
    """A file of two pages or frames."""
    frames, buffer = [PillowImage.new("RGB", (20, 20), color) for color in ("red", "blue")], io.BytesIO()
    frames[0].save(buffer, format_, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


@pytest.fixture
def slow(monkeypatch):
    return Slow(monkeypatch)


@pytest.fixture
def serve(engines):
    """Makes a client of a server; the engine is its attribute `engine`."""

    def make(access: Access | None = None, base: str = HOST, **limits: float) -> TestClient:
        engine = engines(**limits)
        client = TestClient(create_app(engine, access), base_url=base, raise_server_exceptions=False)
        client.engine = engine
        return client

    return make


@pytest.fixture
def client(serve):
    return serve()


def error(response, status: int) -> dict[str, str]:
    assert response.status_code == status, response.text
    body = response.json()["error"]
    assert body["status"] == status
    assert body["message"]
    return body


def command(*arguments: object) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert stopped.value.code == 0


@pytest.mark.parametrize("way", ["query", "form", "job"])
def test_the_bytes_of_the_command(way, client, grey16, tmp_path, tiny_grey):
    (tmp_path / "a.png").write_bytes(grey16)
    options = {"sigma": "20", "strength": "0.7", "steps": "1"}
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    command("denoise", tmp_path / "a.png", "-o", tmp_path / "b.png", "--model", tiny_grey, *flags)
    options["model"] = "grey"
    if way == "form":
        files = {"image": ("../../etc/passwd", grey16)}
        response = client.post("/v1/denoise", data=options, files=files)
    elif way == "query":
        response = client.post("/v1/denoise", params=options, content=grey16)
    else:
        job = client.post("/v1/denoise", params=options, content=grey16, headers=JSON)
        assert job.status_code == 202
        address = f"/v1/jobs/{job.json()['id']}"
        assert job.headers["location"] == address.removeprefix("/v1/")
        wait(lambda: client.get(address).json()["state"] == "done")
        response = client.get(f"{address}/result")
    assert response.status_code == 200
    assert response.content == (tmp_path / "b.png").read_bytes()
    assert response.headers["content-type"] == "image/png"
    report = json.loads(response.headers["nlrn-report"])
    assert (report["sigma"], report["width"], report["height"]) == (20, 48, 40)


@pytest.mark.parametrize(
    ("task", "options", "flags"),
    [
        ("upscale", {"model": "upscaler", "scale": "3"}, ["--scale", "3"]),
        ("upscale", {"model": "upscaler", "scale": "1.5"}, ["--scale", "1.5"]),
        ("upscale", {"model": "upscaler", "size": "100x"}, ["--size", "100x"]),
        ("upscale", {"model": "upscaler", "fit": "100x70"}, ["--fit", "100x70"]),
        ("dejpeg", {"model": "dejpeg", "strength": "0.5,1"}, ["--strength", "0.5,1"]),
    ],
)
def test_the_other_tasks(task, options, flags, client, photo, tmp_path, request):
    weights = request.getfixturevalue(f"tiny_{options['model']}")
    (tmp_path / "a.png").write_bytes(photo)
    command(task, tmp_path / "a.png", "-o", tmp_path / "b.png", "--model", weights, *flags)
    response = client.post(f"/v1/{task}", params=options, content=photo)
    assert response.content == (tmp_path / "b.png").read_bytes()


def noisy_file(name: str, sigma: float) -> bytes:
    noise = np.random.default_rng(0).normal(0, sigma, (64, 64, 3))
    values = np.linspace(60, 190, 64)[:, None, None] + noise
    return encode_image(Image(values.round().clip(0, 255).astype(np.uint8)), name, quality=98)


@pytest.mark.parametrize(
    ("options", "flags"),
    [({}, []), ({"scale": "1.5"}, ["--scale", "1.5"]), ({"for": "scan"}, ["--for", "scan"])],
)
def test_restore_measures_and_says_why(options, flags, client, tmp_path):
    given = noisy_file("PNG", 12)
    (tmp_path / "a.png").write_bytes(given)
    command("restore", tmp_path / "a.png", "-o", tmp_path / "b.png", *flags)
    response = client.post("/v1/restore", params=options, content=given)
    assert response.content == (tmp_path / "b.png").read_bytes()
    report = json.loads(response.headers["nlrn-report"])
    assert report["model"].startswith("nlrn-photo" if "for" in options else "nlrn-small-color")
    assert report["notes"][0].startswith("chosen by hand" if "for" in options else "white noise, ")
    assert (report["width"], report["height"]) == ((96, 96) if "scale" in options else (64, 64))


@pytest.mark.parametrize("format_", ["", "png"])
def test_what_needs_nothing_is_copied(client, format_):
    """A JPEG file would lose by being written again."""
    given = noisy_file("JPEG", 0)
    response = client.post("/v1/restore", params={"format": format_}, content=given)
    report = json.loads(response.headers["nlrn-report"])
    assert report["model"] == "no model"
    if format_:
        assert (read_image(response.content).pixels == read_image(given).pixels).all()
    else:
        assert response.content == given
        assert report["notes"][-1].endswith("the file is copied, as to write it again would lose something")


def test_options_that_contradict_a_kind_of_picture(client, photo):
    body = error(client.post("/v1/denoise?for=scan&model=bm3d", content=photo), 422)
    assert "purpose='scan' chooses the model" in body["message"]
    body = error(client.post("/v1/denoise?for=scan&sigma=5", content=photo), 422)
    assert "takes a model that has no noise level" in body["message"]


def test_format_and_depth(client, photo, grey16):
    options = {"model": "grey", "sigma": 5}
    response = client.post("/v1/denoise", params={**options, "format": "tiff"}, content=grey16)
    assert response.headers["content-type"] == "image/tiff"
    assert read_image(response.content).pixels.dtype == "uint16"
    assert response.headers["content-disposition"] == 'attachment; filename="restored.tiff"'
    small, large = (
        client.post("/v1/denoise", params={**options, "format": "jpg", "quality": q}, content=photo).content
        for q in (20, 95)
    )
    assert len(small) < len(large)


def test_a_region(client, photo):
    response = client.post(
        "/v1/denoise", params={"model": "grey", "sigma": 5, "region": "40,30,256,256"}, content=photo
    )
    assert read_image(response.content).pixels.shape == (10, 8, 3)


def test_events_until_the_end(client, grey16, slow):
    job = client.post("/v1/denoise?model=grey", content=grey16, headers=JSON).json()
    slow.begun.wait(10)
    events = []
    with client.stream("GET", f"/v1/jobs/{job['id']}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        slow.let_go.set()
        events = [line for line in response.iter_lines() if line]
    assert events[-2] == "event: done"
    assert json.loads(events[-1].removeprefix("data: "))["progress"] == 1
    assert events[0] == "event: progress"


def test_cancel(client, grey16, slow):
    ids = [client.post("/v1/denoise", content=grey16, headers=JSON).json()["id"] for _ in range(2)]
    slow.begun.wait(10)
    assert client.get(f"/v1/jobs/{ids[1]}").json()["position"] == 0
    assert error(client.get(f"/v1/jobs/{ids[0]}/result"), 409)["got"] == "running"
    for name in ids:
        assert client.delete(f"/v1/jobs/{name}").status_code == 204
        error(client.get(f"/v1/jobs/{name}"), 404)
    wait(lambda: client.engine.running == 0 and client.engine.held == 0)
    assert client.engine.finished == {"cancelled": 2}


def test_limits(serve, photo, grey16, slow):
    small = serve(upload=len(photo) - 1)
    assert error(small.post("/v1/denoise", content=photo), 413)["got"] == f"{len(photo)} bytes"
    stream = (photo[i : i + 100] for i in range(0, len(photo), 100))
    assert "or more" in error(small.post("/v1/denoise", content=stream), 413)["got"]
    error(small.post("/v1/denoise", files={"image": photo}), 413)
    assert error(serve(pixels=1919).post("/v1/denoise", content=photo), 413)["got"] == "48x40"
    error(serve(pixels=1919).post("/v1/view", content=photo), 413)
    assert "bytes of uploads" in error(serve(memory=10).post("/v1/denoise", content=photo), 503)["expected"]
    late = error(serve(seconds=0.05).post("/v1/denoise", content=photo), 504)
    assert late["expected"] == "at most 0.05 s of work"
    full = serve(queue=1)
    slow.begun.clear()
    full.post("/v1/denoise", content=photo, headers=JSON)
    slow.begun.wait(10)
    full.post("/v1/denoise", content=photo, headers=JSON)
    response = full.post("/v1/denoise", content=photo)
    assert error(response, 429)["expected"] == "at most 1 jobs that wait"
    assert response.headers["retry-after"]
    assert full.engine.held == 2 * len(photo)


@pytest.mark.parametrize(
    ("send", "words"),
    [
        ({"content": b""}, "no image came"),
        ({"content": b"\0" * 100}, "not an image of a supported format"),
        ({"content": b"GIF89a"}, "damaged or unsupported GIF"),
        ({"content": two("TIFF")}, "has 2 pages; only single images are supported here"),
        ({"content": two("PNG")}, "holds 2 images or frames; only single images are supported here"),
        ({"content": b"\x89PNG\r\n\x1a\n" + b"\0" * 100}, "damaged"),
        ({"files": {"a": b"1", "b": b"2"}}, "one image"),
        ({"files": {"image": b""}}, "no image came"),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, "form is broken"),
        ({"content": b"?", "headers": {"content-type": "multipart/form-data; boundary=x"}}, "form is broken"),
        ({"content": b"\0", "params": {"sigma": "x"}}, "no noise level"),
        ({"content": b"\0", "params": {"model": "/etc/passwd"}}, "not a model of this server"),
        ({"files": {"image": b"\0"}, "data": {"task": "upscale"}}, "not an option of denoise"),
        ({"content": b"\0", "params": {"path": "x"}}, "not an option of denoise"),
    ],
)
def test_bad_requests(send, words, client):
    assert words in error(client.post("/v1/denoise", **send), 422)["message"]
    assert client.engine.held == 0


def test_other_errors_are_json_too(client, photo, monkeypatch):
    error(client.get("/nowhere"), 404)
    error(client.get("/v1/denoise"), 405)
    error(client.post("/v1/denoise", data={"a": "b"}), 415)
    monkeypatch.setattr(client.engine, "submit", lambda *_: 1 / 0)
    assert "zero" not in error(client.post("/v1/denoise", content=photo), 500)["message"]
    assert client.engine.held == 0


def test_errors_of_the_work_have_their_status(client, photo):
    body = error(client.post("/v1/denoise?model=dejpeg", content=photo), 422)
    assert "model for dejpeg" in body["message"]
    assert client.engine.held == 0


@pytest.mark.parametrize(
    "path", ["/static/../server.py", "/static/%2e%2e/server.py", "/static//etc/passwd", "/v1"]
)
def test_nothing_else_can_be_read(path, client):
    error(client.get(path), 404)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("127.0.0.1:8642", True),
        ("[::1]:8642", True),
        ("192.168.1.5", True),
        ("photos.example:443", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
        ("[", False),
    ],
)
def test_names_of_the_server(host, allowed, serve):
    response = serve(Access(hosts=("photos.example",))).get("/health", headers={"host": host})
    if allowed:
        assert response.json()["status"] == "ok"
    else:
        error(response, 421)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:3000"])
def test_pages_of_other_origins(origin, client, photo):
    error(client.post("/v1/denoise", content=photo, headers={"origin": origin}), 403)
    same = client.post("/v1/view", content=photo, headers={"origin": HOST})
    assert same.status_code == 200
    assert "access-control-allow-origin" not in same.headers


def test_pages_of_other_sites_without_an_origin(client):
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    error(client.get("/v1/models", headers=headers), 403)
    assert client.get("/", headers=headers | {"sec-fetch-mode": "navigate"}).status_code == 200


def test_the_token(serve, photo):
    client = serve(Access(token="correct horse"))
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic correct horse"}):
        response = client.post("/v1/view", content=photo, headers=headers)
        error(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"
    for path in ("/v1/models", "/metrics", "/openapi.json", "/v1/jobs/x"):
        error(client.get(path), 401)
    assert client.get("/").status_code == client.get("/health").status_code == 200
    good = {"authorization": "Bearer correct horse"}
    assert client.post("/v1/view", content=photo, headers=good).status_code == 200


def test_a_prefix(serve, photo):
    client = serve(Access(prefix="/tools/nlrn", token="correct horse"))
    assert client.get("/tools/nlrn").url == f"{HOST}/tools/nlrn/"
    error(client.get("/"), 404)
    good = {"authorization": "Bearer correct horse"}
    assert client.get("/tools/nlrn/v1/models", headers=good).status_code == 200
    options = {"model": "grey", "sigma": 5}
    assert (
        client.post("/tools/nlrn/v1/denoise", params=options, content=photo, headers=good).status_code == 200
    )
    metrics = client.get("/tools/nlrn/metrics", headers=good).text
    assert 'nlrn_requests_total{path="/v1/denoise",status="200"} 1' in metrics


def test_headers_of_every_answer(client):
    for path in ("/", "/nowhere", "/health"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_files_of_the_page_are_asked_for_once(client):
    first = client.get("/")
    again = client.get("/", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_models_and_speeds(client, photo):
    body = client.get("/v1/models").json()
    names = [model["name"] for model in body["models"]]
    assert {"nlrn-small-photo", "bm3d", "grey"} <= set(names)
    assert body["speeds"] == []
    client.post("/v1/denoise?model=colour&sigma=9&steps=1", content=photo)
    (speed,) = client.get("/v1/models").json()["speeds"]
    assert speed["steps"] == 1
    assert speed["seconds_per_megapixel"] > 0


def test_metrics(client, photo):
    client.post("/v1/denoise?model=grey&sigma=5", content=photo)
    client.get("/v1/jobs/made-up")
    client.get("/made-up")
    text = client.get("/metrics").text
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) nlrn_\w+ .+|nlrn_\w+(\{.*\})? [\d.e+-]+", line), line
    assert 'nlrn_requests_total{path="/v1/denoise",status="200"} 1' in text
    assert 'nlrn_requests_total{path="/v1/jobs/{id}",status="404"} 1' in text
    assert 'nlrn_jobs_finished_total{state="done"} 1' in text
    assert "nlrn_held_bytes 0" in text
    assert "made-up" not in text


def test_the_description_names_every_route(client):
    document = client.get("/openapi.json").json()
    operations = {
        (path, method) for path, o in document["paths"].items() for method in o if method != "parameters"
    }
    assert len(operations) == 13
    for path, method in operations:
        response = client.request(method, path.replace("{id}", "x"))
        assert str(response.status_code) in document["paths"][path][method]["responses"], path
    posted = document["paths"]["/v1/upscale"]["post"]
    names = {p["name"] for p in posted["parameters"]}
    assert names == {"model", "scale", "size", "fit", "steps", "format", "quality", "region"}
    names = {p["name"] for p in document["paths"]["/v1/restore"]["post"]["parameters"]}
    assert names == {"for", "strength", "scale", "size", "fit", "steps", "format", "quality", "region"}
    assert "grey" in next(p for p in posted["parameters"] if p["name"] == "model")["schema"]["enum"]
    used = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert used == set(document["components"]["schemas"])


def test_view(client):
    """The numbers of the file where a PNG file can hold them, upright."""
    pixels = picture((9, 7), "uint16")
    turned = exif.build(exif.Directories(main={exif.ORIENTATION: exif.Tag(3, b"\6\0")}))
    response = client.post("/v1/view", content=encode_image(Image(pixels, exif=turned), "TIFF"))
    assert response.headers["content-type"] == "image/png"
    assert (response.headers["nlrn-exact"], response.headers["nlrn-range"]) == ("1", "0.0,65535.0")
    np.testing.assert_array_equal(read_image(response.content).pixels, np.rot90(pixels, -1))
    assert client.engine.held == 0


def test_view_of_floats(client):
    """On the range of the picture, or on one that is given, so that two can be shown alike."""
    floats = encode_image(Image(np.array([[0, 1000.0, 4000.0]] * 3, np.float32)), "TIFF")
    own = client.post("/v1/view", content=floats)
    assert own.headers["nlrn-exact"] == "0"
    low, high = map(float, own.headers["nlrn-range"].split(","))
    assert low <= 0
    assert 4000 <= high < 5000
    given = client.post("/v1/view?range=0,8000", content=floats)
    np.testing.assert_array_equal(read_image(given.content).pixels[0], [0, 32, 128])
    numbers = client.post("/v1/view?numbers=1", content=floats)
    assert numbers.headers["nlrn-floats"] == "1"
    planes = read_image(numbers.content).pixels.reshape(3, 4, 3)
    found = np.ascontiguousarray(planes.transpose(0, 2, 1)).view("<f4")[..., 0]
    np.testing.assert_array_equal(found, read_image(floats).pixels)
    for text in ("1", "5,1", "a,b", "0,inf"):
        assert "is no range" in error(client.post(f"/v1/view?range={text}", content=floats), 422)["message"]


def test_score(client):
    """Equal to that of the command line, on the whole and on a region."""
    clean = picture((40, 48, 3))
    noisy = clean ^ np.uint8(16)
    files = {"image": encode_image(Image(noisy)), "reference": encode_image(Image(clean))}
    whole = client.post("/v1/score", files=files).json()
    assert whole == pytest.approx(score(noisy, clean).as_json())
    part = np.s_[10:30, 5:30]
    expected = pytest.approx(score(noisy[part], clean[part]).as_json())
    assert client.post("/v1/score?region=5,10,25,20", files=files).json() == expected
    files["image"] = encode_image(Image(noisy[part]))
    assert client.post("/v1/score?region=5,10,25,20", files=files).json() == expected
    assert "differ in size" in error(client.post("/v1/score", files=files), 422)["message"]
    assert client.engine.held == 0


def test_score_refuses(client, photo, monkeypatch):
    body = error(client.post("/v1/score", files={"image": photo}), 422)
    assert (body["expected"], body["got"]) == ("files image and reference", "image")
    assert error(client.post("/v1/score", content=photo), 415)["message"] == "the body is no form"
    pair = {"image": photo, "reference": b""}
    assert "no image came" in error(client.post("/v1/score", files=pair), 422)["message"]
    monkeypatch.setattr(work, "SCORED_PIXELS", 100)
    pair["reference"] = photo
    assert error(client.post("/v1/score", files=pair), 413)["got"] == "48x40"
    assert client.post("/v1/score?region=0,0,10,10", files=pair).json()["identical"]
    assert client.engine.held == 0


def test_a_result_stays_until_it_is_deleted(client, photo):
    job = client.post("/v1/denoise?model=grey&sigma=5", content=photo, headers=JSON).json()
    wait(lambda: client.get(f"/v1/jobs/{job['id']}").json()["state"] == "done")
    assert client.engine.held > 0
    time.sleep(0.01)
    client.delete(f"/v1/jobs/{job['id']}")
    assert client.engine.held == 0


def test_a_box_is_of_the_picture_that_viewers_show(client):
    """A picture that lies on its side in the file fits the box as it is seen."""
    turned = exif.build(exif.Directories(main={exif.ORIENTATION: exif.Tag(3, b"\6\0")}))
    on_side = encode_image(Image(picture((20, 40, 3)), format="PNG", exif=turned))  # seen: 20 wide, 40 high
    response = client.post("/v1/upscale?model=upscaler&fit=500x80", content=on_side)
    assert read_image(response.content).pixels.shape == (40, 80, 3)
    body = error(client.post("/v1/upscale?model=upscaler&fit=10x10", content=on_side), 422)
    assert "larger than the image, 20x40" in body["message"]
    body = error(client.post("/v1/upscale?scale=2&fit=9x9", content=on_side), 422)
    assert body["message"] == "scale and fit contradict each other"
