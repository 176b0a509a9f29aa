"""Forty ways to be wrong: one line, the right exit code, nothing half written."""

from __future__ import annotations

import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage

from nlrn.files.images import Image, encode_image, read_image, write_image

CANNOT_START, ALL_FAILED = 2, 4


def png(shape: tuple[int, ...] = (20, 20), dtype: str = "uint8") -> bytes:
    white = {"uint8": 255, "uint16": 65535}[dtype]
    return encode_image(Image((np.random.default_rng(0).random(shape) * white).astype(dtype)), "PNG")


def bomb(folder: Path) -> None:
    header = struct.pack(">IIBBBBB", 200_000, 200_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    data = b"".join(
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks
    )
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def image(content: bytes | Callable[[], bytes], name: str = "a.png") -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content())


def tiff(array: np.ndarray, **options: object) -> Callable[[Path], None]:
    return lambda folder: tifffile.imwrite(folder / "a.png", array, **options)


def animation(format_: str) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        frames = [PillowImage.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
        frames[0].save(folder / "a.png", format_, save_all=True, append_images=frames[1:])

    return save


def nothing(folder: Path) -> None:
    pass


def read_only_folder(folder: Path) -> None:
    image(png())(folder)
    (folder / "out").write_text("a file where the folder should be")


def empty_folder(folder: Path) -> None:
    (folder / "empty").mkdir()


def folder_named_like_an_image(folder: Path) -> None:
    (folder / "a.png").mkdir()


def dangling_link(folder: Path) -> None:
    (folder / "a.png").symlink_to(folder / "gone.png")


def loop(folder: Path) -> None:
    (folder / "a.png").symlink_to("a.png")


def weights(content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        image(png())(folder)
        (folder / "w.safetensors").write_bytes(content)

    return write


good = image(png())
nan = np.full((20, 20), np.nan, np.float32)
inf = np.full((20, 20), np.inf, np.float32)
foreign = struct.pack("<Q", 2) + b"{}"

# name -> what lies in the folder, arguments after `nlrn`, exit code, words of the message
CASES: dict[str, tuple[Callable[[Path], None], str, int, str]] = {
    "empty file": (image(b""), "denoise a.png", ALL_FAILED, "a.png is empty"),
    "truncated PNG": (image(png()[:200]), "denoise a.png", ALL_FAILED, "truncated"),
    "truncated 16-bit PNG": (image(png(dtype="uint16")[:400]), "denoise a.png", ALL_FAILED, "truncated"),
    "text renamed": (
        image(b"hello, world\n" * 9),
        "denoise a.png",
        ALL_FAILED,
        "not an image of a supported format",
    ),
    "random bytes": (
        image(bytes(range(256))),
        "denoise a.png",
        ALL_FAILED,
        "not an image of a supported format",
    ),
    "decompression bomb": (bomb, "denoise a.png", ALL_FAILED, "pixels"),
    "GIF as output": (animation("GIF"), "denoise a.png -o b.gif", CANNOT_START, "unknown suffix"),
    "animated PNG as JPEG": (
        animation("PNG"),
        "denoise a.png -o b.jpg",
        ALL_FAILED,
        "JPEG cannot hold an animation of 2 frames; PNG, TIFF or WEBP can",
    ),
    "TIFF of several pages as PNG": (
        animation("TIFF"),
        "denoise a.png",
        ALL_FAILED,
        "PNG cannot hold 2 pages; TIFF can",
    ),
    "a page that is not there": (
        animation("TIFF"),
        "denoise a.png --pages 1,7",
        ALL_FAILED,
        "has 2 pages, and page 7",
    ),
    "pages from 0": (good, "denoise a.png --pages 0-3", CANNOT_START, "--pages must be counted from 1"),
    "pages that are none": (good, "denoise a.png --pages one", CANNOT_START, "such as 1-10,20, got 'one'"),
    "unknown estimate": (good, "denoise a.png --estimate all", CANNOT_START, "must be stack or page"),
    "TIFF of 5 channels": (
        tiff(np.zeros((20, 20, 5), np.uint8), photometric="rgb"),
        "denoise a.png",
        ALL_FAILED,
        "5",
    ),
    "TIFF of int32": (tiff(np.zeros((20, 20), np.int32)), "denoise a.png", ALL_FAILED, "int32"),
    "TIFF with NaN": (tiff(nan), "denoise a.png -o b.tif", ALL_FAILED, "NaN or infinite"),
    "TIFF with Inf": (tiff(inf), "denoise a.png -o b.tif", ALL_FAILED, "NaN or infinite"),
    "TIFF far beyond its range": (
        tiff(np.linspace(0, 255, 400, dtype=np.float32).reshape(20, 20)),
        "denoise a.png -o b.tif --data-range 10",
        ALL_FAILED,
        "far beyond its range, --data-range 10",
    ),
    "16 bit to JPEG": (
        image(png(dtype="uint16")),
        "denoise a.png -o b.jpg",
        ALL_FAILED,
        "JPEG cannot hold uint16",
    ),
    "too small for auto": (image(png((8, 8))), "denoise a.png", ALL_FAILED, "give sigma"),
    "no such file": (nothing, "denoise a.png", CANNOT_START, "a.png does not exist"),
    "glob without match": (good, "denoise *.tif", CANNOT_START, "*.tif matches no file"),
    "empty folder": (empty_folder, "denoise empty", CANNOT_START, "no images in the folder empty"),
    "folder named like an image": (
        folder_named_like_an_image,
        "denoise a.png",
        CANNOT_START,
        "no images in the folder",
    ),
    "dangling link": (dangling_link, "denoise a.png", ALL_FAILED, "No such file"),
    "link to itself": (loop, "denoise a.png", ALL_FAILED, "symbolic links"),
    "nothing to do": (good, "denoise", CANNOT_START, "no input"),
    "output folder is missing": (
        good,
        "denoise a.png -o no/b.png",
        CANNOT_START,
        "folder of the output no/b.png does not exist",
    ),
    "output folder is a file": (
        read_only_folder,
        "denoise a.png -o out/",
        CANNOT_START,
        "cannot make the output folder out",
    ),
    "output of unknown suffix": (good, "denoise a.png -o b.xyz", CANNOT_START, "unknown suffix"),
    "output on proc": (
        good,
        "denoise a.png -o /proc/b.png",
        CANNOT_START,
        "cannot write to the folder /proc",
    ),
    "output is the input": (good, "denoise a.png -o a.png --overwrite", CANNOT_START, "never modified"),
    "sigma -1": (good, "denoise a.png --sigma -1", CANNOT_START, "--sigma must lie between 0 and 255"),
    "sigma NaN": (good, "denoise a.png --sigma nan", CANNOT_START, "--sigma must lie between 0 and 255"),
    "sigma 1e9": (good, "denoise a.png --sigma 1e9", CANNOT_START, "--sigma must lie between 0 and 255"),
    "sigma of letters": (good, "denoise a.png --sigma much", CANNOT_START, "'much'"),
    "unknown model": (good, "denoise a.png --model dncnn", CANNOT_START, "the models are: nlrn-small-gray"),
    "pickle as weights": (
        weights(pickle.dumps({"w": 1})),
        "denoise a.png --model w.safetensors",
        CANNOT_START,
        "not a safetensors file",
    ),
    "text as weights": (
        weights(b"hello"),
        "denoise a.png --model w.safetensors",
        CANNOT_START,
        "not a safetensors file",
    ),
    "foreign weights": (
        weights(foreign),
        "denoise a.png --model w.safetensors",
        CANNOT_START,
        "not a model that nlrn wrote",
    ),
    "image as weights": (good, "denoise a.png --model a.png", CANNOT_START, "not a safetensors file"),
    "steps that are no head": (good, "denoise a.png --steps 3", CANNOT_START, "can stop after 2, 4, 6 steps"),
    "steps of letters": (good, "denoise a.png --steps x", CANNOT_START, "--steps"),
    "unknown device": (good, "denoise a.png --device tpu", CANNOT_START, "tpu"),
    "no memory": (good, "denoise a.png --max-memory 0", CANNOT_START, "--max-memory must be a size"),
    "too little memory": (good, "denoise a.png --sigma 5 --max-memory 1K", ALL_FAILED, "memory"),
    "even window": (good, "denoise a.png --window 44", CANNOT_START, "--window must be odd"),
    "data range of zero": (
        good,
        "denoise a.png --data-range 0",
        CANNOT_START,
        "--data-range must be positive",
    ),
    "strength above 1": (
        good,
        "denoise a.png --strength 3",
        CANNOT_START,
        "strength must be a number from 0",
    ),
    "quality 101": (good, "denoise a.png --quality 101", CANNOT_START, "--quality"),
    "unknown option": (good, "denoise a.png --sharpness 3", CANNOT_START, "--sharpness"),
    "unknown command": (good, "enhance a.png", CANNOT_START, "enhance"),
    "stdin and files": (good, "denoise - a.png", CANNOT_START, "must be the only input"),
    "demo with input": (good, "denoise a.png --demo", CANNOT_START, "--demo takes no input"),
    "text as a checkpoint": (
        weights(b"hello"),
        "import-tf w.safetensors -o m.safetensors",
        CANNOT_START,
        "checkpoint",
    ),
    "noise on nothing": (nothing, "add-noise a.png -o b.png", CANNOT_START, "a.png"),
    "benchmark without data": (
        nothing,
        "benchmark denoise --data data",
        CANNOT_START,
        "no image set Set12 in data",
    ),
}


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, nlrn, tmp_path):
    prepare, arguments, code, words = CASES[case]
    prepare(tmp_path)
    before = contents(tmp_path)
    outcome = nlrn(*arguments.split())
    assert outcome.out == ""
    assert words in outcome.err
    assert outcome.err.count("\n") == 1, outcome.err
    assert outcome.code == code
    assert contents(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(nlrn, tmp_path):
    good(tmp_path)
    tmp_path.chmod(0o500)
    try:
        outcome = nlrn("denoise", "a.png", "--sigma", 5)
    finally:
        tmp_path.chmod(0o700)
    assert outcome.code == CANNOT_START
    assert "cannot write to the folder" in outcome.err


def test_a_full_disk_leaves_nothing(nlrn, tmp_path, tiny_grey, monkeypatch):
    good(tmp_path)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    outcome = nlrn("denoise", "a.png", "--sigma", 5, "--model", tiny_grey)
    assert outcome.code == ALL_FAILED
    assert outcome.err == "failed: a.png: No space left on device: a-denoised.png\n"
    assert list(contents(tmp_path)) == ["a.png"]


def test_there_are_at_least_forty():
    assert len(CASES) >= 40


def test_a_file_that_comes_meanwhile_is_kept(nlrn, tmp_path, tiny_grey, monkeypatch):
    good(tmp_path)
    from nlrn.restoration import Restorer

    original = Restorer.image

    def slow(self, *args, **options):
        write_image(Image(np.zeros((2, 2), np.uint8)), tmp_path / "a-denoised.png")
        return original(self, *args, **options)

    monkeypatch.setattr(Restorer, "image", slow)
    outcome = nlrn("denoise", "a.png", "--sigma", 5, "--model", tiny_grey)
    assert outcome.code == ALL_FAILED
    assert "a-denoised.png exists" in outcome.err
    assert read_image(tmp_path / "a-denoised.png").pixels.shape == (2, 2)
