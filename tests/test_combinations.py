"""Random sizes, modes, types and ways in: `nlrn.denoise` keeps shape, type, mode and metadata, and never crashes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import ImageCms

import nlrn
from nlrn.files.images import Image, read_image, write_image

SIDES = [*range(1, 65), 67, 71, 79, 83, 89, 97]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
WHITE = {"uint8": 255, "uint16": 65535, "float16": 1, "float32": 1, "float64": 1}
# Format -> types and whether it has alpha.
FILES = {
    "png": (("uint8", "uint16"), True),
    "jpg": (("uint8",), False),
    "tif": (("uint8", "uint16", "float32"), True),
    "webp": (("uint8",), True),
    "bmp": (("uint8",), False),
}


@dataclasses.dataclass(frozen=True)
class Case:
    way: str
    size: tuple[int, int]
    channels: int
    alpha: bool
    dtype: str
    auto: bool
    steps: int | None
    ensemble: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Case:
        def one_of(options):
            return options[rng.integers(len(options))]

        size = (int(one_of(SIDES)), int(one_of(SIDES)))
        if rng.random() < 0.1:
            size = one_of([(1, 500), (500, 1), (1, 1), (2, 499)])
        way = one_of(["array", "channels first", "batch", *FILES])
        dtypes, alpha = FILES.get(way, (tuple(WHITE), True))
        return cls(
            way,
            size,
            one_of([1, 3]),
            alpha and rng.random() < 0.4,
            one_of(dtypes),
            rng.random() < 0.3,
            one_of([None, None, 1, 2]),
            rng.random() < 0.1,
        )


def values(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return (rng.uniform(0.1, 0.9, shape) * WHITE[dtype]).astype(dtype)


def too_small(case: Case) -> bool:
    """Whether the noise cannot be estimated; a single pixel is a constant image, which comes back as it is."""
    return case.auto and min(case.size) < 16 and case.size != (1, 1)


def check(case: Case, rng: np.random.Generator, models: dict[int, str], folder) -> None:
    options = {"model": models[case.channels], "steps": case.steps, "ensemble": case.ensemble}
    height, width = case.size
    colour = values(rng, (height, width, case.channels), case.dtype)
    alpha = values(rng, (height, width), case.dtype) if case.alpha else None
    if case.way in FILES:
        source, target = folder / f"in.{case.way}", folder / f"out.{case.way}"
        pixels = colour[..., 0] if case.channels == 1 else colour
        icc = SRGB if case.channels == 3 and case.way != "bmp" else None
        write_image(Image(pixels, alpha, icc=icc, lossless=True), source)
        sigma = "auto" if case.auto else 20.0
        if too_small(case):
            with pytest.raises(ValueError, match="give sigma"):
                nlrn.denoise(source, sigma, output=target, **options)
            assert not target.exists()
            return
        nlrn.denoise(source, sigma, output=target, **options)
        before, after = read_image(source), read_image(target)
        assert after.pixels.shape == before.pixels.shape
        assert (after.pixels.dtype, after.format) == (before.pixels.dtype, before.format)
        assert (after.icc, after.exif) == (before.icc, before.exif)
        assert (after.alpha is None) == (before.alpha is None)
        assert before.alpha is None or np.array_equal(after.alpha, before.alpha)
        assert np.isfinite(after.pixels).all()
        array = nlrn.denoise(source, sigma, **options)
        if case.way != "jpg":
            read = array.reshape(height, width, -1)[..., : 3 if before.pixels.ndim == 3 else 1]
            assert np.array_equal(read, after.pixels.reshape(read.shape))
        return
    stack = colour if alpha is None else np.concatenate([colour, alpha[..., None]], -1)
    if case.way == "array":
        given = stack[..., 0] if stack.shape[2] == 1 else stack
    else:
        given = torch.from_numpy(np.ascontiguousarray(np.moveaxis(stack, -1, 0)))
        given = given if case.way == "channels first" else torch.stack([given, given.clone()])
    sigma = "auto" if case.auto else 0.08 * WHITE[case.dtype]
    if too_small(case):
        with pytest.raises(ValueError, match="give sigma"):
            nlrn.denoise(given, sigma, **options)
        return
    result = nlrn.denoise(given, sigma, **options)
    assert (type(result), result.shape, result.dtype) == (type(given), given.shape, given.dtype)
    assert np.isfinite(np.asarray(result, np.float64)).all()
    if alpha is not None:
        last = np.asarray(result) if case.way == "array" else np.moveaxis(np.asarray(result), -3, -1)
        assert np.array_equal(last[..., -1], np.broadcast_to(alpha, last.shape[:-1]))


@pytest.fixture
def models(tiny_grey, tiny_colour):
    return {1: str(tiny_grey), 3: str(tiny_colour)}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("seed", range(200))
def test_combination(seed, models, tmp_path):
    rng = np.random.default_rng(seed)
    check(Case.draw(rng), rng, models, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("seed", range(1000, 2000))
def test_more_combinations(seed, models, tmp_path):
    rng = np.random.default_rng(seed)
    check(Case.draw(rng), rng, models, tmp_path)


def test_what_is_drawn_covers_everything():
    drawn = [Case.draw(np.random.default_rng(seed)) for seed in range(200)]
    assert {case.way for case in drawn} == {"array", "channels first", "batch", *FILES}
    assert {case.dtype for case in drawn} == set(WHITE)
    assert {case.channels for case in drawn} == {1, 3}
    assert any(1 in case.size for case in drawn)
    assert any(500 in case.size for case in drawn)
    assert sum(case.alpha for case in drawn) > 20
