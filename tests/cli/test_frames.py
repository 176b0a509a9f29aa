"""Videos by their frames: streams of images from standard input to standard output."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from nlrn.files.frames import split_frames
from nlrn.files.images import Image, encode_image, read_image

COMMAND = ("denoise", "-", "-o", "-", "--model", "gaussian", "--sigma", 20)


def ppm(pixels: np.ndarray) -> bytes:
    """A binary Netpbm image."""
    kind = "6" if pixels.ndim == 3 else "5"
    white = 255 if pixels.dtype == np.uint8 else 65535
    header = f"P{kind}\n{pixels.shape[1]} {pixels.shape[0]}\n{white}\n".encode()
    return header + pixels.astype(">u2" if white > 255 else np.uint8).tobytes()


def png(pixels: np.ndarray) -> bytes:
    return encode_image(Image(pixels), "PNG")


def noisy(count: int, shape=(24, 30, 3), dtype=np.uint8, sigma: float = 10.0) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    scale = 1 if dtype == np.uint8 else 257
    return [
        np.clip(scale * (60 + 20 * n + rng.normal(0, sigma, shape)), 0, scale * 255).astype(dtype)
        for n in range(count)
    ]


@pytest.fixture
def piped(nlrn, monkeypatch):
    """Runs nlrn with bytes on standard input: outcome, and the frames of standard output."""

    def run(content: bytes, *arguments):
        target = io.BytesIO()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(target))
        outcome = nlrn(*(arguments or COMMAND))
        written = target.getvalue()
        return outcome, [read_image(part).pixels for part in split_frames(io.BytesIO(written)) if part]

    return run


@pytest.mark.parametrize("encode", [ppm, png])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(24, 30, 3), (24, 30)])
def test_each_frame_is_restored_in_its_place(piped, encode, dtype, shape):
    frames = noisy(3, shape, dtype)
    outcome, restored = piped(b"".join(map(encode, frames)))
    assert outcome.code == 0, outcome.err
    assert "standard input -> standard output (3 pages, gaussian" in outcome.err
    assert len(restored) == 3
    for one, before in zip(restored, frames, strict=True):
        assert one.dtype == dtype
        assert one.shape == shape
        assert one.mean() == pytest.approx(before.mean(), rel=0.01)
        assert one.std() < 0.6 * before.std()


def test_a_stream_of_one_frame_is_a_file(piped):
    (frame,) = noisy(1)
    _, (alone,) = piped(ppm(frame))
    _, (first, second) = piped(2 * ppm(frame))
    assert (first == alone).all()
    assert (second == alone).all()


def test_one_estimate_for_the_stream_or_one_a_frame(piped):
    """The first frames have noise of 5 and the later ones of 20, which one estimate of the stream does not see."""
    frames = [*noisy(8, (64, 64), sigma=5), *noisy(1, (64, 64), sigma=20)]
    content = b"".join(map(ppm, frames))
    options = ("denoise", "-", "-o", "-", "--model", "gaussian", "--sigma", "auto")
    _, together = piped(content, *options)
    _, apart = piped(content, *options, "--estimate", "page")
    assert len(together) == len(apart) == 9
    assert together[8].std() > 1.5 * apart[8].std()
    assert all(abs(a.std() - b.std()) < 0.5 for a, b in zip(together[:8], apart[:8], strict=True))


def test_a_cut_off_stream_gives_what_is_whole(piped):
    content = b"".join(map(ppm, noisy(3)))
    outcome, restored = piped(content[:-10])
    assert outcome.code == 4
    assert "frame 3 of the stream is damaged or truncated" in outcome.err
    assert len(restored) == 2


@pytest.mark.parametrize("count", [2, 4])
def test_frames_before_a_damaged_one_are_written(piped, count):
    """They are also looked at for the noise of all of them."""
    content = b"".join(map(ppm, noisy(count)))
    outcome, restored = piped(content[:-10], "denoise", "-", "-o", "-", "--model", "tv")
    assert outcome.code == 4
    assert f"frame {count} of the stream is damaged or truncated" in outcome.err
    assert len(restored) == count - 1


def test_a_frame_of_another_size_is_named(piped):
    outcome, restored = piped(ppm(noisy(1)[0]) + ppm(noisy(1, (10, 12, 3))[0]))
    assert outcome.code == 4
    assert "frame 2 of standard input is uint8 of shape (10, 12, 3), and the first one is" in outcome.err
    assert len(restored) == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ("-o", "out.png"),
            "standard input has several images: their results go to -o -, and not to out.png",
        ),
        (("-o", "-", "--pages", "1"), "pages are chosen of files, and standard input has several images"),
        (("-o", "-", "--format", "tiff"), "a stream of images is written as PNG or JPEG, and not as TIFF"),
    ],
)
def test_what_a_stream_cannot_be(piped, tmp_path, more, message):
    outcome, restored = piped(2 * ppm(noisy(1)[0]), "denoise", "-", *more, "--model", "gaussian")
    assert outcome.code == 4
    assert message in outcome.err
    assert restored == []
    assert not (tmp_path / "out.png").exists()


def test_memory_is_that_of_one_frame():
    """The stream is never held: 200 frames of 30 KB pass through."""
    frame = ppm(np.zeros((100, 100, 3), np.uint8))

    class Endless(io.RawIOBase):
        left = 200 * len(frame)

        def read(self, count: int = -1) -> bytes:
            assert count >= 0, "the rest of the stream is asked for"
            start = (200 * len(frame) - self.left) % len(frame)
            part = (frame + frame)[start : start + min(count, self.left, len(frame))]
            self.left -= len(part)
            return part

    tracemalloc.start()
    count = sum(content == frame for content in split_frames(Endless()))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 200
    assert most < 8 * len(frame)


def test_white_space_between_frames():
    frames = [ppm(frame) for frame in noisy(3)]
    assert list(split_frames(io.BytesIO(b"\n\n".join(frames) + b"\n"))) == frames


def test_of_a_live_stream_only_the_frame_is_waited_for():
    """And the first bytes of the next one, by which a stream is known from a file."""
    frame = ppm(noisy(1)[0])
    reading, writing = os.pipe()
    with open(reading, "rb") as stream, open(writing, "wb", buffering=0) as source:
        source.write(frame + frame[:8])
        assert next(split_frames(stream)) == frame


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"P",
        b"P6",
        b"P3\n1 1\n255\n1 2 3\n",
        b"no picture",
        ppm(noisy(1)[0])[:-1],
        ppm(noisy(1)[0]) + b"junk",
    ],
    ids=["empty", "P", "P6", "text", "other", "cut off", "with a tail"],
)
def test_what_is_no_stream_is_passed_on_whole(content):
    assert list(split_frames(io.BytesIO(content))) == [content]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_a_video_through_ffmpeg(tmp_path):
    """The pipe of the documentation, with a small video."""
    rng = np.random.default_rng(0)
    frames = [np.clip(120 + rng.normal(0, 25, (48, 64, 3)), 0, 255).astype(np.uint8) for _ in range(5)]
    encode = ["ffmpeg", "-v", "error", "-f", "image2pipe", "-framerate", "5", "-i", "-"]
    subprocess.run(
        [*encode, "-c:v", "ffv1", "noisy.mkv"], cwd=tmp_path, input=b"".join(map(ppm, frames)), check=True
    )
    page = (Path(__file__).parents[2] / "docs" / "batches.md").read_text()
    (block,) = (part for part in page.split("```sh\n") if part.startswith("ffmpeg"))
    script = block.split("```")[0].replace("in.mp4", "noisy.mkv").replace("out.mp4", "out.mkv")
    script = script.replace("nlrn denoise", f"{sys.executable} -m nlrn denoise --model gaussian")
    script = script.replace("-framerate 25", "-framerate 5").replace("libx264", "ffv1")
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr
    raw = ["ffmpeg", "-v", "error", "-i", "out.mkv", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    written = subprocess.run(raw, cwd=tmp_path, capture_output=True, check=True).stdout
    restored = np.frombuffer(written, np.uint8).reshape(5, 48, 64, 3)
    assert restored.std() < 0.6 * np.stack(frames).std()
