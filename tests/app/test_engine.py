"""The queue and its worker, without HTTP."""

from __future__ import annotations

import time

import numpy as np
import pytest
from slow_work import Slow, wait

from nlrn.app import engine as engine_module
from nlrn.app.engine import Engine
from nlrn.app.limits import Refused
from nlrn.app.order import Order, Region, read_order
from nlrn.app.work import crop, shown
from nlrn.files import exif
from nlrn.files.exif import Directories, Tag
from nlrn.files.images import Image, ImageError, encode_image, image_size, read_image
from nlrn.files.orientation import turned
from nlrn.restoration import Restorer
from pictures import picture

GREY = Order("denoise", model="grey", sigma=20.0)


def submit(engine: Engine, order: Order, upload: bytes):
    engine.reserve(len(upload))
    return engine.submit(order, upload)


@pytest.fixture
def slow(monkeypatch):
    return Slow(monkeypatch)


def test_a_job_is_what_the_restorer_does(engines, grey16, tiny_grey):
    job = submit(engines(), GREY, grey16)
    wait(lambda: job.finished)
    expected, report = Restorer(tiny_grey, device="cpu").image(read_image(grey16), 20.0)
    assert job.state == "done"
    assert job.result.data == encode_image(expected)
    assert job.as_json()["result"]["sigma"] == round(255 * report.sigma, 3) == 20
    assert job.fraction == 1


def test_one_job_after_the_other(engines, grey16, slow):
    engine = engines()
    jobs = [submit(engine, GREY, grey16) for _ in range(3)]
    wait(lambda: jobs[0].state == "running" and jobs[0].fraction > 0)
    assert [engine.position(job) for job in jobs] == [None, 0, 1]
    assert jobs[2].as_json(engine.position(jobs[2]))["position"] == 1
    slow.let_go.set()
    wait(lambda: jobs[2].finished)
    assert [job.state for job in jobs] == ["done"] * 3


def test_cancelling_stops_the_work(engines, grey16, slow):
    engine = engines()
    running, waiting = submit(engine, GREY, grey16), submit(engine, GREY, grey16)
    slow.begun.wait(10)
    engine.cancel(waiting)
    assert waiting.state == "cancelled"
    engine.cancel(running)
    wait(lambda: running.finished)
    assert running.state == "cancelled"
    assert slow.steps_done < 10**5
    assert engine.held == 0


def test_listeners_hear_of_steps_and_the_end(engines, grey16, slow):
    engine, heard = engines(start=False), []
    job = submit(engine, GREY, grey16)
    job.listen(lambda: heard.append((job.state, job.fraction)))
    engine.start()
    wait(lambda: len(heard) >= 3)
    slow.let_go.set()
    wait(lambda: job.finished and heard[-1] == ("done", 1.0))
    assert heard == sorted(heard, key=lambda state: state[1])


def test_work_that_takes_too_long(engines, grey16, slow):
    job = submit(engines(seconds=0.05), GREY, grey16)
    wait(lambda: job.finished)
    assert job.state == "failed"
    assert (job.error.status, job.error.expected) == (504, "at most 0.05 s of work")


def test_a_full_queue(engines, grey16, slow):
    engine = engines(queue=1)
    submit(engine, GREY, grey16)
    slow.begun.wait(10)
    submit(engine, GREY, grey16)
    with pytest.raises(Refused) as refused:
        engine.submit(GREY, grey16)
    assert (refused.value.status, refused.value.expected) == (429, "at most 1 jobs that wait")


def test_too_many_pixels(engines, grey16):
    engine = engines(pixels=40 * 48)
    assert submit(engine, GREY, grey16)
    with pytest.raises(Refused) as refused:
        engine.submit(Order("upscale", model="upscaler", scale=2), grey16)
    assert (refused.value.status, refused.value.got) == (413, "96x80")
    with pytest.raises(Refused) as refused:
        engine.submit(Order("upscale", model="upscaler", scale=1.01), grey16)
    assert (refused.value.status, refused.value.got) == (413, "49x41")
    for order, got in (
        (Order("upscale", model="upscaler", fit=(80, 96)), "96x80"),
        (Order("upscale", model="upscaler", scale=2, region=Region(0, 0, 32, 32)), "64x64"),
    ):
        job = submit(engine, order, grey16)
        wait(lambda job=job: job.finished)
        assert (job.error.status, job.error.got) == (413, got)
    job = submit(engine, Order("upscale", model="upscaler", scale=2, region=Region(0, 0, 8, 8)), grey16)
    wait(lambda: job.finished)
    assert (job.result.width, job.result.height) == (16, 16)


def test_old_results_make_room_and_uploads_do_not(engines, grey16):
    engine = engines(memory=3 * len(grey16))
    jobs = []
    for _ in range(4):
        jobs.append(submit(engine, GREY, grey16))
        wait(lambda: jobs[-1].finished)
        assert jobs[-1].state == "done"
        assert engine.held <= 3 * len(grey16)
    with pytest.raises(Refused, match="no such job"):
        engine.job(jobs[0].id)
    assert engine.job(jobs[-1].id) is jobs[-1]
    with pytest.raises(Refused) as refused:
        engine.reserve(3 * len(grey16) + 1)
    assert refused.value.status == 503
    assert engine.held == 0


def test_no_byte_is_counted_twice(engines, grey16, monkeypatch):
    """A job that is forgotten at any moment gives back what it holds."""
    engine = engines()
    for delay in (0, 0.001, 0.004, 0.01, 0.03):
        job = submit(engine, GREY, grey16)
        time.sleep(delay)
        engine.forget(job)
        wait(lambda job=job: job.finished and engine.held == 0)


def test_finished_jobs_are_forgotten_in_the_end(engines, constant):
    engine = engines(jobs=2, queue=1)
    jobs = []
    for _ in range(6):
        jobs.append(submit(engine, GREY, constant))
        wait(lambda: jobs[-1].finished)
    assert sum(job.id in engine._jobs for job in jobs) == 3


def test_errors_of_the_work(engines, grey16, photo, monkeypatch, caplog):
    engine = engines()
    cases = {
        "RGB images": submit(engine, Order("denoise", model="colour", sigma=5.0), grey16),
        "can stop after 1, 2 steps": submit(engine, Order("denoise", model="grey", steps=7), grey16),
        "JPEG cannot hold uint16": submit(engine, Order("denoise", model="grey", format="JPEG"), grey16),
        "model for dejpeg": submit(engine, Order("denoise", model="dejpeg"), photo),
        "truncated": submit(engine, GREY, photo[:-200]),
        "outside of the image": submit(engine, Order("denoise", region=Region(50, 0, 9, 9)), photo),
    }
    for words, job in cases.items():
        wait(lambda job=job: job.finished)
        assert job.state == "failed"
        assert job.error.status == 422
        assert words in job.error.message
    with pytest.raises(ImageError, match="not an image"):
        engine.submit(GREY, b"\0no image")
    for error, status in ((MemoryError("12 MiB"), 503), (RuntimeError("a secret"), 500)):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(engine_module, "restore_file", fail)
        job = submit(engine, GREY, grey16)
        wait(lambda job=job: job.finished)
        assert job.error.status == status
        assert "secret" not in job.error.message
    assert "a secret" in caplog.text


def test_a_closed_engine_cancels(engines, grey16, slow):
    engine = engines()
    running, waiting = submit(engine, GREY, grey16), submit(engine, GREY, grey16)
    slow.begun.wait(10)
    engine.close()
    assert running.state == waiting.state == "cancelled"
    with pytest.raises(Refused, match="about to stop"):
        engine.submit(GREY, grey16)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_region_is_of_the_picture_that_viewers_show(orientation):
    pixels = picture((11, 7, 3))
    block = exif.build(Directories({exif.ORIENTATION: Tag(3, bytes([orientation, 0]))}))
    image = Image(pixels, alpha=pixels[..., 0], exif=block)
    seen = turned(pixels, orientation)
    part = crop(image, Region(2, 1, 4, 5))
    assert np.array_equal(turned(part.pixels, orientation), seen[1:6, 2:6])
    assert np.array_equal(part.pixels[..., 0], part.alpha)
    beyond = crop(image, Region(3, 4, 100, 100))
    assert np.array_equal(turned(beyond.pixels, orientation), seen[4:, 3:])


@pytest.mark.parametrize(("dtype", "depth"), [("uint8", "uint8"), ("uint16", "uint16"), ("float32", "uint8")])
def test_shown(dtype, depth):
    pixels = picture((9, 7, 3), dtype)
    png, headers = shown(encode_image(Image(pixels), "TIFF"))
    found = read_image(png).pixels
    white = {"uint8": 255, "uint16": 65535, "float32": 1}
    assert found.dtype == depth
    assert headers["nlrn-exact"] == str(int(dtype == depth))
    assert np.abs(found / white[depth] - pixels / white[dtype]).max() <= (0 if dtype == depth else 1 / 255)


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
def test_size_of_a_file(format_):
    data = encode_image(Image(picture((9, 7, 3))), format_)
    assert image_size(data) == (7, 9)
    with pytest.raises(ImageError):
        image_size(data[:9])


def test_size_of_16_bit(grey16):
    assert image_size(grey16) == (48, 40)


MODELS = ("grey", "bm3d")


def test_an_order():
    fields = {"model": "bm3d", "sigma": "12.5", "strength": "0.5, 1", "steps": "4", "format": "jpg"}
    order = read_order("denoise", {**fields, "quality": "80", "region": "1,2,30,40"}, MODELS)
    region = Region(1, 2, 30, 40)
    assert order == Order(
        "denoise", "bm3d", 12.5, (0.5, 1), steps=4, format="JPEG", quality=80, region=region
    )
    assert read_order("denoise", {"sigma": "", "model": " "}, MODELS) == Order("denoise")
    assert read_order("upscale", {}, MODELS) == Order("upscale", scale=2)
    assert read_order("upscale", {"scale": "1.5"}, MODELS) == Order("upscale", scale=1.5)
    assert read_order("upscale", {"size": "4096x"}, MODELS) == Order("upscale", size=(None, 4096))
    assert read_order("upscale", {"fit": "3840x2160"}, MODELS) == Order("upscale", fit=(2160, 3840))
    assert read_order("restore", {}, MODELS) == Order("restore")
    fields = {"for": "scan", "size": "x99", "strength": "0.5"}
    assert read_order("restore", fields, MODELS) == Order(
        "restore", purpose="scan", strength=0.5, size=(99, None)
    )
    assert read_order("denoise", {"for": "photo"}, MODELS) == Order("denoise", purpose="photo")


@pytest.mark.parametrize(
    ("task", "name", "value"),
    [
        ("denoise", "model", "../../etc/passwd"),
        ("denoise", "sigma", "nan"),
        ("denoise", "sigma", "-1"),
        ("denoise", "sigma", "256"),
        ("dejpeg", "sigma", "5"),
        ("denoise", "strength", "1.1"),
        ("denoise", "strength", "1,1,1"),
        ("upscale", "strength", "0.5"),
        ("upscale", "scale", "1"),
        ("upscale", "scale", "16.5"),
        ("upscale", "scale", "nan"),
        ("upscale", "scale", "wide"),
        ("denoise", "scale", "2"),
        ("denoise", "size", "99x"),
        ("upscale", "size", "x"),
        ("upscale", "size", "12"),
        ("upscale", "fit", "99x"),
        ("denoise", "steps", "two"),
        ("denoise", "steps", "9" * 5000),
        ("denoise", "format", "gif"),
        ("denoise", "quality", "0"),
        ("denoise", "region", "1,2,3"),
        ("denoise", "region", "1,2,0,4"),
        ("denoise", "path", "/etc/passwd"),
        ("denoise", "for", "holiday"),
        ("upscale", "for", "scan"),
        ("restore", "model", "bm3d"),
        ("restore", "sigma", "5"),
        ("restore", "scale", "1"),
    ],
)
def test_bad_fields(task, name, value):
    with pytest.raises(Refused) as refused:
        read_order(task, {name: value}, MODELS)
    assert refused.value.status == 422
    assert refused.value.expected
    assert len(refused.value.got) < 100
