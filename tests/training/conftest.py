"""Images to train on."""

from __future__ import annotations

import numpy as np
import pytest

from nlrn.files.images import Image, write_image


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    from skimage.data import brick, camera, coins, moon

    folder = tmp_path_factory.mktemp("images")
    for number, picture in enumerate((camera(), coins(), moon(), brick())):
        write_image(Image(np.ascontiguousarray(picture[:160, 40:240])), folder / f"{number}.png")
    return folder
