"""A server for a browser, a photograph for it, and what a test asks of the page."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
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
QUEUE = "[...document.querySelectorAll('#queue li')].map((row) => row.innerText.trim())"
VALUES = "document.querySelector('.slider-values').textContent"


@contextmanager
def running(prefix="", names=(), **files):
    """The address of a server, which knows the weight files `files` and the host names `names`."""
    engine = Engine(Limits(), devices=("cpu",), files={name: Path(file) for name, file in files.items()})
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    app = create_app(engine, Access(prefix=prefix, hosts=tuple(names)))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", ws="none"))
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    engine.start()
    try:
        yield f"http://localhost:{listener.getsockname()[1]}{prefix}/"
    finally:
        server.should_exit = True
        thread.join(10)
        engine.close()
        listener.close()


def photo(path, shape=(160, 200, 3)):
    rng = np.random.default_rng(0)
    ramp = np.linspace(60, 190, shape[1])[:, None] * np.ones(3)
    noisy = np.clip(np.rint(ramp + rng.normal(0, 35, shape)), 0, 255).astype(np.uint8)
    path.write_bytes(encode_image(Image(noisy)))
    return path


def remove_noise(browser):
    """The task that has a choice of methods."""
    browser.run("document.querySelector('[value=denoise]').click()")


def set_simply(browser):
    """A method that takes no time."""
    remove_noise(browser)
    browser.run("document.querySelector('#model').value = 'gaussian'")
