"""Hot pixels that stay where they are over the pages of a stack: found where single pages do not show them."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import tifffile
import torch
from scipy.ndimage import shift
from skimage.data import camera

import nlrn
from nlrn.files.images import Image
from nlrn.ops.hot_pixels import Page, hot_pixels, hot_pixels_of_stack
from nlrn.restoration import Restorer, restore_stack
from nlrn.restoration.shared import FAULTS
from nlrn.restoration.stream import restored_stream

GAIN, READ, SIDE = 2.0, 6.0, 96
SENSOR = {"noise": "poisson-gaussian", "gain": GAIN, "read_noise": READ}


def drifting(count: int = 16) -> np.ndarray:
    part = 4.0 * camera()[100 : 108 + SIDE, 80 : 88 + SIDE]
    return np.stack([shift(part, (0.3 * t, 0.2 * t), order=1)[8:, 8:] for t in range(count)])


def beads(count: int = 16) -> np.ndarray:
    """Spots that pass by, of one pixel for one frame or of several that move."""
    rng, (y, x) = np.random.default_rng(5), np.mgrid[:SIDE, :SIDE]
    frames = np.full((count, SIDE, SIDE), 60.0)
    for place, way in zip(rng.uniform(0, SIDE, (20, 2)), rng.normal(0, 1, (20, 2)), strict=True):
        for time, frame in enumerate(frames):
            row, column = (place + way * time) % SIDE
            frame += 800 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 2)
    return frames


def taken(clean: np.ndarray, times: float, share: float = 0.005) -> tuple[np.ndarray, np.ndarray]:
    """Counts, and where pixels are hot by so many times the noise."""
    rng = np.random.default_rng(1)
    hot = rng.random(clean.shape[1:]) < share
    noisy = GAIN * rng.poisson(clean / GAIN) + READ * rng.standard_normal(clean.shape)
    return noisy + hot * times * np.sqrt(GAIN * np.median(clean) + READ**2), hot


def planes(frame: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frame)[None, None]


def found(counts: np.ndarray) -> np.ndarray:
    mask = hot_pixels_of_stack(Page(planes(one), GAIN, READ**2) for one in counts)
    assert mask is not None
    return mask[0, 0].numpy()


@pytest.mark.parametrize(
    ("scene", "times", "share", "of_frames"),
    [(beads, 3, 0.75, 0.02), (beads, 40, 0.9, 1), (drifting, 4, 0.55, 0.1), (drifting, 40, 0.85, 1)],
)
def test_weak_ones_show_over_the_stack(scene, times, share, of_frames):
    counts, hot = taken(scene(), times)
    mask = found(counts)
    assert mask[hot].mean() >= share
    assert mask[~hot].sum() <= 1
    alone = np.mean([hot_pixels(planes(one), GAIN, READ**2)[0, 0].numpy()[hot].mean() for one in counts])
    assert alone <= of_frames
    assert mask[hot].mean() >= alone


def test_what_passes_by_stays():
    """Cosmic rays of one pixel, each in one frame, are faults of that frame, and stay in a stack."""
    counts, _ = taken(beads(), 0, 0)
    rng = np.random.default_rng(2)
    rays = np.stack([rng.random((SIDE, SIDE)) < 0.002 for _ in counts])
    counts[rays] += 3000
    mask = found(counts)
    assert not mask.any()
    assert hot_pixels(planes(counts[3]), GAIN, READ**2)[0, 0].numpy()[rays[3]].mean() > 0.9


def test_a_few_pages_are_not_most():
    counts, _ = taken(np.full((16, 40, 40), 400.0), 0, 0)
    counts[:6, 20, 20] += 5000  # six times six deviations alone would be enough
    counts[:13, 30, 30] += 5000
    assert np.argwhere(found(counts)).tolist() == [[30, 30]]


def test_strong_ones_in_texture():
    """There detail of the picture stands out as far as a page counts."""
    counts, _ = taken(drifting(1).repeat(16, 0), 40, 0.01)
    each = [hot_pixels(planes(one), GAIN, READ**2)[0, 0].numpy() for one in counts]
    assert not (np.mean(each, 0) > 0.5)[~found(counts)].any()


def test_dead_ones_and_neighbours():
    counts, _ = taken(np.full((16, 40, 40), 400.0), 0, 0)
    for place in ((10, 10), (10, 11), (0, 0), (30, 39)):
        counts[(slice(None), *place)] = 300
    assert np.argwhere(found(counts)).tolist() == [[0, 0], [10, 10], [10, 11], [30, 39]]


@pytest.mark.parametrize("electrons", [0.02, 0.3, 5.0])
def test_photons_are_no_faults(electrons):
    counts = np.random.default_rng(0).poisson(electrons, (32, SIDE, SIDE)).astype(float)
    counts[:, 50, 50] += np.random.default_rng(1).poisson(6.0, 32)
    mask = hot_pixels_of_stack(Page(planes(one), 1.0, 0.0) for one in counts)
    assert mask[0, 0].nonzero().tolist() == [[50, 50]]


def test_bands_and_hidden_pixels(monkeypatch):
    counts, _ = taken(drifting(), 6)
    whole = found(counts)
    monkeypatch.setattr("nlrn.ops.hot_pixels.BAND", 7 * SIDE)
    assert np.array_equal(found(counts), whole)
    hidden = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.bool)
    hidden[..., 40:] = True
    pages = [Page(planes(one), GAIN, READ**2, None if i < 5 else hidden) for i, one in enumerate(counts)]
    mask = hot_pixels_of_stack(pages)[0, 0].numpy()
    assert not mask[:, 40:].any()
    assert np.array_equal(mask[:, :38], whole[:, :38])
    assert hot_pixels_of_stack([]) is None


@pytest.mark.parametrize("options", [SENSOR, {"sigma": "auto"}, {}], ids=["sensor", "auto", "own"])
def test_a_stack_of_an_array(options, caplog):
    counts, hot = taken(beads(8), 8)
    with caplog.at_level(logging.INFO, "nlrn"):
        stack = nlrn.denoise(counts, axes="ZYX", model="gaussian", hot_pixels="stack", **options)
    count = int(found(counts).sum()) if options is SENSOR else None
    notes = [
        r.message
        for r in caplog.records
        if "hot or dead pixels in the same place in most of 8 pages" in r.message
    ]
    assert len(notes) == 1  # not one a page
    assert count is None or notes[0].startswith(f"{count} hot or dead")
    left = np.abs(stack - beads(8))[:, hot]
    kept = np.abs(nlrn.denoise(counts, axes="ZYX", model="gaussian", **options) - beads(8))[:, hot]
    assert np.median(left) < 0.3 * np.median(kept)


def test_channels_have_faults_of_their_own():
    """Channels of a stack are groups, and colours of a pixel are masked apart."""
    counts = np.random.default_rng(0).normal(500, 10, (8, 2, 40, 40))
    counts[:, 0, 10, 10] += 60
    clean = nlrn.denoise(counts, 10.0, axes="TCYX", model="gaussian", hot_pixels="stack")
    assert clean[:, 0, 10, 10].mean() < 510
    colors = np.random.default_rng(0).normal(500, 10, (8, 40, 40, 3))
    colors[:, 10, 10, 1] += 900
    model = lambda image, sigma=None: image  # noqa: E731
    clean = nlrn.denoise(colors, 10.0, axes="TYXC", model=model, hot_pixels="stack")
    assert clean[:, 10, 10, 1].max() < 600
    clean[:, 10, 10, 1] = colors[:, 10, 10, 1]
    assert np.allclose(clean, colors, atol=1e-3)


def test_so_many_pages_are_looked_at_and_none_is_kept():
    class Pages:
        """A long stack that counts what is asked of it."""

        def __init__(self) -> None:
            self.asked = 0

        def __call__(self, index: int) -> np.ndarray:
            self.asked += 1
            return np.random.default_rng(index).normal(100, 5, (40, 40))

    from nlrn.restoration.shared import common_faults

    pages = Pages()
    faults = common_faults(pages, range(500), Restorer("gaussian", hot_pixels="stack").options)
    assert (pages.asked, faults.pages) == (FAULTS, FAULTS)
    assert int(faults.mask.sum()) == 0


@pytest.mark.parametrize("count", [1, 7])
def test_too_few_pages(count, tmp_path):
    got = "a single page" if count == 1 else "7"
    words = f"hot_pixels='stack' needs 8 pages or more of one channel, size and type, got {got}; hot_pixels='frame'"
    counts = taken(beads(count), 8)[0].astype(np.float32)
    restorer = Restorer("gaussian", hot_pixels="stack", **SENSOR)
    with pytest.raises(ValueError, match=words):
        restore_stack(restorer, counts, "ZYX")
    with pytest.raises(ValueError, match=words):
        list(restored_stream(restorer, [Image(one) for one in counts]))
    tifffile.imwrite(tmp_path / "s.tif", counts, photometric="minisblack")
    with pytest.raises(ValueError, match=words):
        nlrn.denoise(tmp_path / "s.tif", model="gaussian", hot_pixels="stack")
    if count == 1:
        for image in (counts[0], planes(counts[0]).float()):
            with pytest.raises(ValueError, match=words):
                nlrn.denoise(image, model="gaussian", hot_pixels="stack")


def test_other_words_are_refused():
    with pytest.raises(ValueError, match="hot_pixels must be True, False, 'frame' or 'stack', got 'page'"):
        nlrn.denoise(np.zeros((20, 20)), hot_pixels="page")
    with pytest.raises(ValueError, match="hot_pixels is for denoise, not for dejpeg"):
        nlrn.dejpeg(np.zeros((20, 20)), hot_pixels="stack")


def test_by_frame_is_what_true_is():
    counts = taken(beads(1), 40)[0][0]
    one, other = (nlrn.denoise(counts, model="gaussian", hot_pixels=way, **SENSOR) for way in (True, "frame"))
    assert np.array_equal(one, other)


def test_frames_of_a_stream():
    counts, _ = taken(beads(12), 8)
    restorer = Restorer(lambda image, sigma=None: image, hot_pixels="stack", **SENSOR)
    frames = [Image(one.astype(np.float32)) for one in counts]
    restored = [image.pixels for image, _ in restored_stream(restorer, frames)]
    mask = found(counts[:8])
    assert mask.sum() > 20
    assert np.allclose(restored[-1][~mask], frames[-1].pixels[~mask], atol=1)
    assert (np.abs(restored[-1] - frames[-1].pixels)[mask] > 20).mean() > 0.9


def test_constant_and_too_many(caplog):
    restorer = Restorer("gaussian", hot_pixels="stack")
    blank = np.full((9, 40, 40), 7, np.uint8)
    assert np.array_equal(restore_stack(restorer, blank, "ZYX")[0], blank)
    dense, _ = taken(np.full((9, 60, 60), 100.0), 0, 0)
    dense[:, ::5, ::5] += 1000
    _, reports = restore_stack(restorer, dense, "ZYX", 20.0)
    assert any("too many for faults" in note for note in reports.joined().notes)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--hot-pixels", "stack"), "in the same place in most of 9 pages are replaced"),
        (("--hot-pixels=stack",), "in the same place in most of 9 pages are replaced"),
        (("--hot-pixels", "frame"), "pixels are replaced by"),
        (("--hot-pixels",), "pixels are replaced by"),
    ],
)
def test_the_command(words, said, tmp_path, capsys, monkeypatch):
    """The value of the option may be left out before a file."""
    from nlrn.cli import main

    monkeypatch.chdir(tmp_path)
    counts, _ = taken(beads(9), 40)
    tifffile.imwrite("s.tif", counts.clip(0, 65535).astype(np.uint16), photometric="minisblack")
    with pytest.raises(SystemExit) as stopped:
        main(["denoise", "--model", "gaussian", *words, "s.tif"])
    said_all = capsys.readouterr()
    assert stopped.value.code == 0, said_all.err
    assert said in " ".join(said_all.err.split())


def test_the_command_refuses(tmp_path, capsys, monkeypatch):
    from nlrn.cli import main

    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("a.tif", np.zeros((40, 40), np.uint8))
    for words, code, said in (
        (("--hot-pixels=page", "a.tif"), 2, "--hot-pixels must be frame or stack, got 'page'"),
        (
            ("a.tif", "--hot-pixels", "stack"),
            4,
            "needs 8 pages or more of one channel, size and type, got a single",
        ),
        (("a.tif", "--hot-pixels", "stack", "--dry-run"), 4, "needs 8 pages or more"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["denoise", "--model", "gaussian", *words])
        err = capsys.readouterr().err
        assert (stopped.value.code, said in " ".join(err.split())) == (code, True), err
