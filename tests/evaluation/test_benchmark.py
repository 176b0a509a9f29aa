"""Measuring a model over a set."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from nlrn import NLRN, load_model
from nlrn.evaluation.benchmark import as_json, measure, provenance
from nlrn.evaluation.contact_sheet import BAND, GAP, contact_sheet
from nlrn.evaluation.metrics import psnr
from nlrn.evaluation.protocol import (
    DENOISING,
    JPEG_REMOVAL,
    REAL_NOISE,
    SUPER_RESOLUTION,
    DataSet,
    noisy_version,
    to_bytes,
)
from nlrn.evaluation.tables import as_markdown, heading, rows
from nlrn.files.images import Image, write_image

CPU = torch.device("cpu")


def identity(image, sigma=None):
    return image


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "Set12").mkdir()
    for i in range(3):
        pixels = rng.integers(60, 190, (16, 20 + i), dtype=np.uint8)
        write_image(Image(pixels, format="PNG"), tmp_path / "Set12" / f"{i}.png")
    return DataSet.find(tmp_path, "Set12")


def test_a_model_that_does_nothing_scores_the_noise(dataset):
    seen = []
    result = measure(
        identity,
        "identity",
        dataset,
        25,
        channels=1,
        device=CPU,
        on_image=lambda _, image: seen.append(image),
    )
    assert result.images == seen
    assert [image.name for image in seen] == ["0.png", "1.png", "2.png"]
    assert result.psnr == result.input_psnr == pytest.approx(20.2, abs=0.3)
    assert result.psnr == pytest.approx(np.mean([image.psnr for image in seen]))
    assert 0 < result.ssim < 1


def test_official_patches(dataset):
    model = load_model("nlrn-small-gray")
    whole = measure(model, "m", dataset, 25, channels=1, device=CPU)
    patches = measure(model, "m", dataset, 25, channels=1, device=CPU, patches=(12, 5))
    assert whole.psnr > whole.input_psnr
    assert patches.psnr != whole.psnr
    assert patches.psnr == pytest.approx(whole.psnr, abs=1)


def test_json_has_everything(dataset):
    result = measure(identity, "identity", dataset, 15, channels=1, device=CPU)
    read = json.loads(as_json([result], provenance(CPU, "whole images")))
    assert {"protocol", "device", "nlrn", "torch", "numpy", "python", "commit", "date"} <= read.keys()
    (entry,) = read["results"]
    assert (entry["dataset"], entry["level"], entry["model"]) == ("Set12", 15, "identity")
    assert entry["psnr"] == pytest.approx(np.mean([image["psnr"] for image in entry["images"]]))


def test_table_sets_the_literature_beside(dataset):
    result = measure(identity, "identity", dataset, 25, channels=1, device=CPU)
    (row,) = rows([result])
    difference = [f"{result.psnr - figure:+.2f}" for figure in (29.97, 30.80)]
    assert row[:3] == ("Set12", "25", "identity")
    assert row[7:11] == ("29.97", difference[0], "30.80", difference[1])
    assert as_markdown([result]).count("\n") == 3


def test_colour_is_set_beside_cbm3d(dataset):
    result = measure(identity, "identity", dataset, 25, channels=1, device=CPU)
    result.dataset = "CBSD68"
    assert rows([result])[0][7:11] == ("30.71", f"{result.psnr - 30.71:+.2f}", "", "")


@pytest.mark.parametrize(("name", "sigma"), [("Set12", 17.5), ("Mine", 25)])
def test_unknown_set_or_level_has_no_literature(dataset, name, sigma):
    result = measure(identity, "identity", dataset, sigma, channels=1, device=CPU)
    result.dataset = name
    assert rows([result])[0][7:11] == ("", "", "", "")


def test_each_task_has_its_table(dataset, tmp_path):
    """The columns fit the cells, and figures of the literature stand where they belong."""
    enlarged = measure(identity, "identity", dataset, 2, task=SUPER_RESOLUTION, channels=1, device=CPU)
    enlarged.dataset = "Set5"
    assert enlarged.psnr == enlarged.input_psnr
    assert enlarged.exact_psnr == pytest.approx(enlarged.psnr, abs=0.1)
    assert enlarged.exact_psnr != enlarged.psnr
    compressed = measure(identity, "identity", dataset, 10, task=JPEG_REMOVAL, channels=1, device=CPU)
    compressed.dataset = "classic5"
    for result, level, before, literature in (
        (enlarged, "scale", "bicubic", {"VDSR": "37.53", "NLRN": "38.00"}),
        (compressed, "quality", "JPEG", {"AR-CNN": "29.03", "DnCNN": "29.40"}),
    ):
        (cells,) = rows([result])
        row = dict(zip(heading(result.task), cells, strict=True))
        assert row[level] == f"{result.level:g}"
        assert row[before] == row["PSNR"]
        assert {name: row[name] for name in literature} == literature


def test_real_noise_has_no_level(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "Pairs"
    folder.mkdir()
    clean = rng.integers(60, 190, (24, 20, 3), dtype=np.uint8)
    for name, pixels in {"a_mean.png": clean, "a_real.png": clean ^ 3}.items():
        write_image(Image(pixels, format="PNG"), folder / name)
    pairs = DataSet.find(tmp_path, "Pairs", REAL_NOISE.files)
    told = []

    def blind(image, sigma=None):
        told.append(sigma)
        return image

    result = measure(blind, "identity", pairs, None, task=REAL_NOISE, channels=3, device=CPU)
    assert [image.name for image in result.images] == ["a_mean.png"]
    assert result.psnr == result.input_psnr == pytest.approx(psnr(clean ^ 3, clean))
    assert 0 < told[0] < 0.3  # estimated
    assert len(rows([result])[0]) == len(heading("photo"))


def test_contact_sheet():
    images = [np.full((10, 20), 100, np.uint8), np.full((30, 15, 3), 7, np.uint8)]
    sheet = contact_sheet([[("grey", images[0]), ("colour", images[1])], [("again", images[0])]])
    assert sheet.shape == (BAND + 30 + GAP + BAND + 10, 20 + GAP + 15, 3)
    assert (sheet[BAND : BAND + 10, :20] == 100).all()
    assert (sheet[BAND : BAND + 30, 20 + GAP :] == 7).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "task", "dataset_name", "level", "card"),
    [
        ("nlrn-small-gray", DENOISING, "Set12", 15, 32.77),
        ("nlrn-small-gray", DENOISING, "Set12", 25, 30.36),
        ("nlrn-small-gray", DENOISING, "Set12", 50, 27.10),
        ("nlrn-small-gray", DENOISING, "BSD68", 25, 29.17),
        ("nlrn-small-color", DENOISING, "CBSD68", 25, 31.29),
        ("nlrn-small-upscale", SUPER_RESOLUTION, "Set5", 2, 37.14),
        ("nlrn-small-upscale", SUPER_RESOLUTION, "Set14", 4, 27.76),
        ("nlrn-small-dejpeg-gray", JPEG_REMOVAL, "classic5", 10, 29.39),
        ("nlrn-small-dejpeg-color", JPEG_REMOVAL, "CBSD68", 10, 27.20),
        ("nlrn-small-photo", REAL_NOISE, "PolyU", None, 39.49),
        ("nlrn-photo", REAL_NOISE, "PolyU", None, 39.46),
        ("bm3d", DENOISING, "Set12", 25, 29.92),
    ],
)
def test_cards_figures(shared_dir, name, task, dataset_name, level, card):
    model = load_model(name)
    files = f"Canon600D{task.files}" if task is REAL_NOISE else task.files
    images = DataSet.find(shared_dir / "data", dataset_name, files)
    channels = model.config.channels if isinstance(model, NLRN) else 1
    result = measure(model, name, images, level, task=task, channels=channels, device=CPU)
    assert result.psnr == pytest.approx(card, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [15, 25, 50])
def test_bfloat16_costs_less_than_a_hundredth(shared_dir, sigma):
    images = DataSet.find(shared_dir / "data", "Set12")
    model = load_model("nlrn-small-gray")
    exact, half = (
        measure(model, "", images, sigma, channels=1, device=CPU, precision=precision).psnr
        for precision in (torch.float32, torch.bfloat16)
    )
    assert half == pytest.approx(exact, abs=0.01)


def test_a_photograph_gets_better_by_as_much_as_it_should():
    from skimage.data import camera

    clean = camera()[100:228, 150:278]
    noisy = noisy_version(clean, 25, 0)
    restored = load_model("nlrn-small-gray")(torch.from_numpy(noisy)[None], 25 / 255)[0].numpy()
    assert psnr(to_bytes(restored), clean) - psnr(to_bytes(noisy), clean) > 8
