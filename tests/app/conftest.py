"""A server in this process, with tiny models."""

from __future__ import annotations

import numpy as np
import pytest

from nlrn.app.engine import Engine
from nlrn.app.limits import Limits
from nlrn.files.images import Image, encode_image
from pictures import picture


@pytest.fixture
def photo() -> bytes:
    """A small colour PNG file."""
    return encode_image(Image(picture((40, 48, 3)), format="PNG"))


@pytest.fixture
def grey16() -> bytes:
    """A small grey PNG file of 16 bit."""
    return encode_image(Image(picture((40, 48), "uint16"), format="PNG"))


@pytest.fixture
def constant() -> bytes:
    """An image that models are not run for."""
    return encode_image(Image(np.full((8, 8), 7, np.uint8), format="PNG"))


@pytest.fixture
def engines(tiny_grey, tiny_colour, tiny_upscaler, tiny_dejpeg):
    """Makes running engines that know the tiny models `grey`, `colour`, `upscaler` and `dejpeg`."""
    made = []

    def make(start: bool = True, **limits: float) -> Engine:
        files = {"grey": tiny_grey, "colour": tiny_colour, "upscaler": tiny_upscaler, "dejpeg": tiny_dejpeg}
        engine = Engine(Limits(**limits), devices=("cpu",), files=files)
        made.append(engine)
        if start:
            engine.start()
        return engine

    yield make
    for engine in made:
        engine.close()
        assert engine.running == engine.waiting == 0
