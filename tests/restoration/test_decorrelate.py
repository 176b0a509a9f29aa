"""`decorrelate`: noise that rows or neighbours share, removed by its spectrum."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.data import astronaut
from typer.testing import CliRunner

import nlrn
from nlrn.cli import app
from nlrn.cli.errors import CliError
from nlrn.evaluation.metrics import psnr
from nlrn.files.images import Image, read_image, write_image
from nlrn.inference.noise_spectrum import estimate_spectrum
from nlrn.restoration import Restorer
from nlrn.restoration.decorrelate import PASSES, denoise_correlated, levels_for

CLEAN = astronaut()[0:72, 60:125]


def picture(kind: str, gray: bool = False, seed: int = 0) -> np.ndarray:
    """A crop of odd width with noise, uint8."""
    clean = CLEAN[..., 1] if gray else CLEAN
    random = np.random.default_rng(seed)
    rows = (len(clean), *(1,) * (clean.ndim - 1))
    offsets, white = (12, 4) if kind == "rows" else (0, 12)
    noise = offsets * random.normal(0, 1, rows) + white * random.normal(0, 1, clean.shape)
    if kind == "grain":
        noise = gaussian_filter(noise, (1, 1, 0)[: noise.ndim])
        noise *= white / noise.std()
    return (clean + noise).clip(0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("gray", [True, False], ids=["grey", "colour"])
def test_row_noise(gray, caplog):
    """2.5 dB better than the model that nlrn chooses, with a note that says what was found."""
    noisy, clean = picture("rows", gray), CLEAN[..., 1] if gray else CLEAN
    with caplog.at_level(logging.INFO, "nlrn"):
        restored = nlrn.denoise(noisy, decorrelate=True)
    assert (restored.shape, restored.dtype) == (noisy.shape, noisy.dtype)
    assert psnr(restored, clean) > psnr(nlrn.denoise(noisy), clean) + 2.5
    assert "correlated noise, removed by its spectrum: offsets of rows 8" in caplog.text
    assert abs(restored.mean() - noisy.mean()) < 1


@pytest.mark.parametrize("gray", [True, False], ids=["grey", "colour"])
def test_white_noise_is_removed_as_without(gray):
    noisy = picture("white", gray)
    result, report = Restorer(decorrelate=True).array(noisy)
    plain, without = Restorer().array(noisy, "auto")
    assert np.array_equal(result, plain)
    assert report.model == without.model
    assert report.notes[0] == "the noise is white: decorrelate=True changes nothing"


def test_sigma_is_the_level_of_the_whole():
    """More of it takes more away; 0 takes nothing."""
    noisy = picture("rows", gray=True) / 255
    removed = [
        np.abs(nlrn.denoise(noisy, sigma, decorrelate=True, model="gaussian") - noisy).mean()
        for sigma in (0.0, 0.02, 0.05)
    ]
    assert removed[0] < 1e-3 < removed[1] < removed[2]
    _, report = Restorer("gaussian", decorrelate=True, data_range=1.0).array(noisy, 0.05)
    assert report.sigma == pytest.approx(0.05, rel=1e-6)
    assert not report.estimated


def test_planes_of_a_stack_and_images_of_a_batch_have_their_own():
    """The first has noise of rows, and the second of columns."""
    planes = np.stack([picture("rows", gray=True)[:65], picture("rows", gray=True, seed=1)[:65].T])
    stack = nlrn.denoise(planes, axes="ZYX", decorrelate=True, model="gaussian", sigma=12)
    batch = nlrn.denoise(torch.from_numpy(planes)[:, None], decorrelate=True, model="gaussian", sigma=12)
    for plane, a, b in zip(planes, stack, batch, strict=True):
        alone = nlrn.denoise(plane, decorrelate=True, model="gaussian", sigma=12)
        assert np.array_equal(a, alone)
        assert np.array_equal(b[0].numpy(), alone)


def test_equal_channels_and_models_of_one_channel():
    gray = picture("rows", gray=True)
    same = np.repeat(gray[..., None], 3, -1)
    restored = nlrn.denoise(same, decorrelate=True, model="gaussian")
    alone = nlrn.denoise(gray, decorrelate=True, model="gaussian")
    assert np.abs(restored - alone[..., None].astype(int)).max() <= 1
    colored = nlrn.denoise(picture("rows"), decorrelate=True, model="nlrn-gray", steps=2)
    assert colored.shape == CLEAN.shape


def test_strength_and_hidden_pixels():
    noisy = picture("rows", gray=True) / 255
    mask = np.zeros(noisy.shape, bool)
    mask[10:20, 10:20] = True
    masked = np.ma.MaskedArray(noisy, mask)
    whole = nlrn.denoise(masked, decorrelate=True, model="gaussian")
    half = nlrn.denoise(masked, decorrelate=True, model="gaussian", strength=0.5)
    assert np.allclose(half.data, (whole.data + noisy) / 2, atol=1e-6)
    assert np.array_equal(whole.data[mask], noisy[mask])


def test_where_the_data_have_no_noise_they_stay():
    """A model that returns nothing at all: what comes before its last pass is what the spectrum keeps."""
    given: list[torch.Tensor] = []

    def nothing(image, sigma, progress):
        given.append(image)
        return torch.zeros_like(image)

    noisy = torch.from_numpy(picture("rows", gray=True) / 255).float()[None, None]
    spectrum = estimate_spectrum(noisy)
    denoise_correlated(noisy, spectrum, nothing, (0.0, 1.0), lambda fraction: None)
    means = [image.mean(3, keepdim=True) - image.mean() for image in (noisy, given[-1])]
    assert means[1].std() < 0.3 * means[0].std()  # what each row has in common
    residues = [image - image.mean(3, keepdim=True) for image in (noisy, given[-1])]
    assert residues[1].std() > 0.7 * residues[0].std()  # and the rest, which is noise of the last level
    assert float(given[-1].mean()) == pytest.approx(float(noisy.mean()), rel=0.02)


def test_levels_fall_within_the_range_of_the_model():
    power = torch.full((1, 8, 8), 0.01**2, dtype=torch.float64)
    power[:, :, 0] = 0.5
    levels = levels_for(power, (0.0, 0.2))
    assert len(levels) == PASSES
    assert levels == sorted(levels, reverse=True)
    assert levels[0] == 0.2
    assert levels[-1] == pytest.approx(0.01, rel=0.1)
    assert levels_for(power * 100, (0.0, 0.2))[-1] < 0.2
    assert all(math.isclose(level, 0.2) for level in levels_for(power, (0.2, 0.2)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"model": "nlrn-photo"},
            "decorrelate is for a model that takes a noise level, and nlrn-photo takes none",
        ),
        (
            {"noise": "poisson-gaussian"},
            "decorrelate is for noise of one level, not for noise='poisson-gaussian'",
        ),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        nlrn.denoise(picture("rows"), decorrelate=True, **options)


def test_other_tasks_types_and_sizes():
    for function in (nlrn.dejpeg, nlrn.restore):
        with pytest.raises(ValueError, match="decorrelate is for denoise, not for"):
            function(CLEAN, decorrelate=True)
    with pytest.raises(TypeError, match="decorrelate must be True or False, got 'rows'"):
        nlrn.denoise(CLEAN, decorrelate="rows")
    with pytest.raises(ValueError, match="of a 20x72 image cannot be estimated"):
        nlrn.denoise(picture("rows")[:, :20], decorrelate=True)
    assert np.array_equal(nlrn.denoise(np.full((9, 9), 7, np.uint8), decorrelate=True), np.full((9, 9), 7))


def test_command(tmp_path):
    write_image(Image(picture("rows", gray=True)), tmp_path / "a.png")
    run = CliRunner().invoke(
        app, ["denoise", str(tmp_path / "a.png"), "--decorrelate", "--model", "gaussian"]
    )
    assert run.exit_code == 0, run.output
    assert "correlated noise, removed by its spectrum" in " ".join(run.output.split())
    assert read_image(tmp_path / "a-denoised.png").pixels.shape == (72, 65)
    refused = CliRunner().invoke(
        app, ["denoise", str(tmp_path / "a.png"), "--decorrelate", "--model", "nlrn-photo", "-o", "b.png"]
    )
    assert isinstance(refused.exception, CliError)
    assert str(refused.exception).startswith(
        "--decorrelate is for a model that takes a noise level, and nlrn-photo"
    )


@pytest.mark.parametrize(("kind", "axis"), [("rows", 0), ("rows", 1), ("grain", 0), ("white", 0)])
def test_the_note_on_noise_that_is_not_white_offers_it(kind, axis):
    """Where rows, columns or neighbours share noise, and nowhere else."""
    noisy = picture(kind, gray=True)
    _, report = Restorer(steps=2).array(noisy.T if axis else noisy)
    text = " ".join(report.notes)
    assert ("decorrelate=True" in text) == (kind != "white")
    assert (f"{('rows', 'columns')[axis]} of the picture share noise" in text) == (kind == "rows")
