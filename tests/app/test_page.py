"""The page in a real browser: choose a file, try a spot, restore, slide, cancel, download."""

from __future__ import annotations

import socket
import threading

import numpy as np
import pytest
import uvicorn

from nlrn.app.engine import Engine
from nlrn.app.guard import Access
from nlrn.app.limits import Limits
from nlrn.app.server import create_app
from nlrn.files.images import Image, encode_image

STATUS = "document.querySelector('#status').textContent"
READY = "!document.querySelector('#restore').disabled"
CANVAS = ".slider-canvas"
DONE = "!document.querySelector('#download').hidden"


@pytest.fixture(params=["", "/nlrn"], ids=["root", "prefix"])
def address(request):
    engine = Engine(Limits(), devices=("cpu",))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    app = create_app(engine, Access(prefix=request.param))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", ws="none"))
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    engine.start()
    yield f"http://localhost:{listener.getsockname()[1]}{request.param}/"
    server.should_exit = True
    thread.join(10)
    engine.close()
    listener.close()


def photo(path, shape=(160, 200, 3)):
    rng = np.random.default_rng(0)
    ramp = np.linspace(60, 190, shape[1])[:, None] * np.ones(3)
    noisy = np.clip(np.rint(ramp + rng.normal(0, 25, shape)), 0, 255).astype(np.uint8)
    path.write_bytes(encode_image(Image(noisy)))
    return path


def test_a_photograph(browser, address, tmp_path):
    browser.size(1280, 860)
    browser.open(address)
    browser.choose(photo(tmp_path / "cat.png"))
    browser.wait(READY)
    browser.click("#try")
    browser.click(CANVAS)
    browser.wait(f"{STATUS}.startsWith('A spot')", 120)
    browser.click("#restore")
    browser.wait(DONE, 120)
    assert browser.run("document.querySelector('#download').download").startswith("cat")
    assert "nlrn-small" in browser.run(STATUS)
    assert all(url.startswith(address.rpartition(":")[0]) for url in browser.requests())
    browser.size(390, 844, phone=True)
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")


def test_a_file_that_is_no_image(browser, address, tmp_path):
    browser.open(address)
    (tmp_path / "text.png").write_text("not an image")
    browser.choose(tmp_path / "text.png")
    browser.wait(f"/format|image/i.test({STATUS})")
    assert browser.run("document.querySelector('#download').hidden")


def test_cancelled(browser, address, tmp_path):
    browser.open(address)
    browser.choose(photo(tmp_path / "large.png", (1500, 1500, 3)))
    browser.wait(READY)
    browser.click("#restore")
    browser.wait("!document.querySelector('#cancel').hidden")
    browser.click("#cancel")
    browser.wait(f"/cancel|stop/i.test({STATUS})")
    assert browser.run("document.querySelector('#download').hidden")
