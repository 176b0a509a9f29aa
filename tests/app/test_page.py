"""The page in a real browser: choose a file, try a spot, restore, slide, cancel, download."""

from __future__ import annotations

import io
import struct
import time
import zipfile
import zlib

import numpy as np
import pytest
from serving import CANVAS, DONE, QUEUE, READY, STATUS, VALUES, photo, remove_noise, running, set_simply

from nlrn.app.page import read_page
from nlrn.cli import main
from nlrn.evaluation.score import score
from nlrn.files.image import merge_alpha
from nlrn.files.images import Image, encode_image, read_image
from nlrn.restoration import Restorer


@pytest.fixture
def address():
    with running() as address:
        yield address


@pytest.mark.parametrize("prefix", ["", "/nlrn"], ids=["root", "prefix"])
def test_a_photograph(browser, prefix, tmp_path):
    with running(prefix) as address:
        restore_a_photograph(browser, address, tmp_path)


def restore_a_photograph(browser, address, tmp_path):
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
    assert "nlrn-color, noise level 3" in browser.run(STATUS)
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


def test_dropped_and_pasted_files(browser, address, tmp_path):
    browser.open(address)
    browser.drop("#viewer", photo(tmp_path / "one.png"), photo(tmp_path / "two.png"))
    browser.wait(f"{QUEUE}.length === 2 && {READY}")
    data = list(photo(tmp_path / "three.png").read_bytes())
    browser.run(
        f"""{{ const data = new DataTransfer();
        data.items.add(new File([new Uint8Array({data})], "three.png", {{ type: "image/png" }}));
        dispatchEvent(new ClipboardEvent("paste", {{ clipboardData: data }})); }}"""
    )
    browser.wait(f"{QUEUE}.length === 3")
    assert [name.split()[0] for name in browser.run(QUEUE)] == ["one.png", "two.png", "three.png"]


def test_buttons_of_the_queue(browser, address, tmp_path):
    shown = "document.querySelector('.slider-size').textContent"
    browser.open(address)
    browser.choose(photo(tmp_path / "one.png"), photo(tmp_path / "two.png", (100, 120, 3)))
    browser.wait(f"{QUEUE}.length === 2 && {READY}")
    assert browser.run(shown) == "200x160"
    browser.click("#queue li:nth-child(2) button")
    assert browser.run(shown) == "120x100"
    pressed = (
        "[...document.querySelectorAll('#queue [aria-pressed]')].map((b) => b.getAttribute('aria-pressed'))"
    )
    assert browser.run(pressed) == ["false", "true"]
    browser.click("#queue li:nth-child(2) .remove")
    assert browser.run(shown) == "200x160"
    browser.click("#queue li .remove")
    assert browser.run(f"{QUEUE}.length") == 0
    assert browser.run("document.querySelector('#restore').disabled")
    assert not browser.run("document.querySelector('.slider-empty').hidden")


def test_all_that_were_chosen_are_restored(browser, address, tmp_path):
    """Those, too, whose pictures are still to come when the button is pressed."""
    browser.open(address)
    browser.choose(*(photo(tmp_path / f"{i}.png", (400, 500, 3)) for i in range(4)))
    browser.wait(READY)
    set_simply(browser)
    browser.run("document.querySelector('#all').click()")
    browser.wait(f"{QUEUE}.every((name) => name.startsWith('✓'))")


def test_all_results_as_a_zip_file(browser, address, tmp_path, monkeypatch):
    """With the names and the bytes of the command line."""
    folder = tmp_path / "downloads"
    browser.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    browser.open(address)
    names = ["café.png", "b.c.png", "twice.png"]
    files = [photo(tmp_path / name, (60, 70 + i, 3)) for i, name in enumerate(names)]
    (tmp_path / "other").mkdir()
    browser.choose(*files, photo(tmp_path / "other" / "twice.png", (50, 50, 3)))
    browser.wait(f"{QUEUE}.length === 4 && {READY}")
    set_simply(browser)
    browser.click("#all")
    browser.wait(f"{QUEUE}.every((name) => name.startsWith('✓'))")
    browser.click("#zip")
    done = folder / "nlrn-results.zip"
    deadline = time.monotonic() + 30
    while not (done.exists() and done.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with zipfile.ZipFile(io.BytesIO(done.read_bytes())) as found:
        assert found.testzip() is None
        suffixed = ["café-denoised.png", "b.c-denoised.png", "twice-denoised.png", "twice-denoised-2.png"]
        assert found.namelist() == suffixed
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit):
            main(["denoise", *names, "--model", "gaussian"])
        for name in suffixed[:3]:
            assert found.read(name) == (tmp_path / name).read_bytes()


def test_values_of_a_file_of_16_bit(browser, address, tmp_path):
    """Before and after, of PNG and, through the server, of TIFF."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(20000, 40000, (61, 81), np.uint16)
    browser.open(address)
    for name, format_ in (("a.png", "PNG"), ("a.tif", "TIFF")):
        (tmp_path / name).write_bytes(encode_image(Image(pixels), format_))
        browser.choose(tmp_path / name)
        place = 1 if format_ == "PNG" else 2
        browser.wait(f"{QUEUE}.length === {place}")
        browser.click(f"#queue li:nth-child({place}) button")
        browser.wait(READY)
        browser.run("Object.assign(document.querySelector('#auto'), { checked: false })")
        set_simply(browser)
        browser.click("#restore")
        browser.wait(DONE)
        browser.mouse("Moved", browser.place(CANVAS))
        browser.wait(f"!{VALUES}.includes('…') && {VALUES}.includes('difference')")
        restored, _ = Restorer("gaussian").image(Image(pixels), 15)
        before, after = int(pixels[30, 40]), int(restored.pixels[30, 40])
        expected = f"x 40, y 30 · Before {before} · After {after} · difference {after - before}"
        assert browser.run(VALUES) == expected
        browser.mouse("Moved", browser.place("#restore"))


def filtered_png(pixels):
    """A PNG file whose rows have all filters by turns. PNG specification, sections 5 and 9."""
    height, width, channels = pixels.shape
    raw = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    step = channels * pixels.itemsize
    rows, above = [], bytes(width * step)
    for y in range(height):
        row = raw[y * width * step : (y + 1) * width * step]
        left, corner = bytes(step) + row[:-step], bytes(step) + above[:-step]
        kind = y % 5
        guesses = [
            (0, a, b, (a + b) // 2, min((a, b, c), key=lambda x, p=a + b - c: abs(p - x)))[kind]
            for a, b, c in zip(left, above, corner, strict=True)
        ]
        rows.append(bytes([kind, *((x - guess) % 256 for x, guess in zip(row, guesses, strict=True))]))
        above = row

    def chunk(name, content):
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, color, 0, 0, 0)
    data = zlib.compress(b"".join(rows))
    parts = [
        chunk(b"IHDR", header),
        chunk(b"IDAT", data[:50]),
        chunk(b"IDAT", data[50:]),
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_numbers_of_a_png_file(dtype, channels, browser, address):
    """With every filter; few values, so that the last one meets draws."""
    rng = np.random.default_rng(0)
    pixels = (rng.integers(0, 4, (25, 30, channels)) * (1 if dtype == "uint8" else 300)).astype(dtype)
    data = filtered_png(pixels)
    np.testing.assert_array_equal(merge_alpha(read_image(data)).reshape(pixels.shape), pixels)
    browser.open(address)
    found = browser.run(
        f"""import("./static/pixels.js").then(({{ readPng }}) => readPng(new Blob([new Uint8Array({list(data)})])))
        .then(({{ channels, data }}) => [channels, ...data])"""
    )
    assert found == [channels, *pixels.ravel().tolist()]


def test_methods_are_compared_on_a_spot(browser, address, tmp_path):
    table = (
        "[...document.querySelectorAll('#measured tr')].map((row) => [...row.cells].map((c) => c.innerText))"
    )
    browser.open(address)
    noisy = photo(tmp_path / "noisy.png", (300, 320, 3))
    ramp = np.linspace(60, 190, 320)[:, None] * np.ones((300, 1, 3))
    clean = np.rint(ramp).astype(np.uint8)
    (tmp_path / "clean.png").write_bytes(encode_image(Image(clean)))
    browser.choose(noisy)
    browser.wait(READY)
    remove_noise(browser)
    browser.run("document.querySelector('#methods').open = true")
    choices = ["gaussian", "nlm", "none", "none"]
    browser.run(
        f"document.querySelectorAll('#method-choices select').forEach((s, i) => (s.value = {choices}[i]))"
    )
    browser.click("#measure")
    browser.wait(f"{table}.length === 2 && !document.querySelector('#measure').disabled")
    assert [row[2] for row in browser.run(table)] == ["", ""]
    browser.drop("#clean-drop", tmp_path / "clean.png")
    browser.wait("document.querySelector('#clean-name').textContent === 'clean.png'")
    browser.click("#measure")
    browser.wait(f"{table}.length === 3 && !document.querySelector('#measure').disabled")
    rows = browser.run(table)
    assert [row[0] for row in rows] == ["as it is", "gaussian", "nlm"]
    spot = np.s_[22:278, 32:288]
    expected = score(read_image(noisy).pixels[spot], clean[spot])
    assert rows[0][2:4] == [f"{expected.psnr:.2f}", f"{expected.ssim:.4f}"]
    assert float(rows[1][2]) > expected.psnr + 5
    browser.click("#measured tr:nth-child(3) button")
    browser.wait("document.querySelector('.slider-tag.right').textContent.startsWith('nlm')")


def test_on_a_phone_the_picture_comes_first(browser, address):
    browser.size(390, 844, phone=True)
    browser.open(address)
    top = "document.querySelector('{}').getBoundingClientRect().top"
    assert browser.run(top.format(CANVAS)) < browser.run(top.format(".controls"))


def test_the_page_is_small():
    assert sum(len(data) for data, *_ in read_page().values()) < 300_000
