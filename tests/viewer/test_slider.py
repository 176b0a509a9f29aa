"""The page of `nlrn compare --html` in a real browser, from a file."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as Pillow

import nlrn
from nlrn.files.images import Image, write_image

CANVAS, RANGE = ".slider-canvas", ".slider-range"
VALUES = "document.querySelector('.slider-values').textContent"
SPLIT = f"Number(document.querySelector({RANGE!r}).value)"
BLACK, WHITE = (0, 0, 0, 255), (255, 255, 255, 255)


@pytest.fixture
def show(browser, tmp_path):
    """Opens a comparison as a file."""

    def show(before, after, **options):
        path = nlrn.compare(before, after, **options).save(tmp_path / "page.html")
        browser.size(800, 600)
        browser.open(f"file://{path}")
        browser.wait("!document.querySelector('.slider-tag').hidden")
        assert browser.requests() == {f"file://{path}"}
        return browser

    return show


def seen(browser, tmp_path):
    """The pixels of the canvas, as the window shows them, `H x W x 3`."""
    browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    browser.screenshot(tmp_path / "seen.png")
    window = np.asarray(Pillow.open(tmp_path / "seen.png").convert("RGB"))
    box = browser.run(f"document.querySelector({CANVAS!r}).getBoundingClientRect().toJSON()")
    left, top = round(box["left"]), round(box["top"])
    return window[top : top + round(box["height"]), left : left + round(box["width"])]


def boundary(pixels):
    """The column where black turns white in a row below the middle."""
    row = pixels[pixels.shape[0] * 3 // 4, :, 0]
    return int(np.flatnonzero(row > 200)[0])


@pytest.fixture
def black_and_white(show):
    return show(np.zeros((300, 600), np.uint8), np.full((300, 600), 255, np.uint8))


def test_the_mouse_moves_the_divider(black_and_white, tmp_path):
    browser = black_and_white
    width = seen(browser, tmp_path).shape[1]
    assert abs(boundary(seen(browser, tmp_path)) - width / 2) <= 2
    browser.drag(CANVAS, (0, 40), (150, 60))
    assert abs(boundary(seen(browser, tmp_path)) - (width / 2 + 150)) <= 2
    browser.click(CANVAS, dx=-200)
    assert abs(boundary(seen(browser, tmp_path)) - (width / 2 - 200)) <= 2


def test_keys_move_the_divider(black_and_white, tmp_path):
    browser = black_and_white
    browser.run(f"document.querySelector({RANGE!r}).focus()")
    for _ in range(10):
        browser.key("ArrowRight", 39)
    assert browser.run(SPLIT) == 550
    width = seen(browser, tmp_path).shape[1]
    assert abs(boundary(seen(browser, tmp_path)) - 0.55 * width) <= 2
    browser.key("Home", 36)
    assert browser.run(SPLIT) == 0
    text = browser.run(f"document.querySelector({RANGE!r}).getAttribute('aria-valuetext')")
    assert text == "0% Before, 100% After"


def test_zoom_and_pan_together(show, tmp_path):
    """Both sides are the same picture, so that under any zoom the divider alone tells them apart."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 200, (30, 40, 3), np.uint8)
    pixels = coarse.repeat(25, 0).repeat(25, 1)
    browser = show(pixels, pixels)
    for move in (
        lambda: browser.click(".slider-bar button:nth-child(2)"),
        lambda: browser.drag(CANVAS, (200, 100), (90, -40)),
        lambda: browser.mouse("Wheel", browser.place(CANVAS, 30, 20), deltaX=0, deltaY=-400),
    ):
        move()
        views = []
        for key, code in (("Home", 36), ("End", 35)):
            browser.key(key, code)
            views.append(seen(browser, tmp_path).astype(int))
        inner = np.abs(views[0] - views[1])[80:, 40:-40]
        assert inner.max() == 0
    _, areas = np.unique(views[0][80:, 40:-40].reshape(-1, 3), axis=0, return_counts=True)
    side = 25 * 1.0015**400  # pixels of the screen for a square of the picture
    assert np.sort(areas)[-20] == pytest.approx(side**2, rel=0.05)


def test_100_percent_and_keys_for_zoom(show, tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (900, 1200, 3), np.uint8)
    browser = show(pixels, pixels)
    browser.run(f"document.querySelector({RANGE!r}).focus()")
    browser.key("1", 49)
    browser.key("End", 35)
    view = seen(browser, tmp_path)
    height, width = view.shape[:2]
    top, left = round(450 - height / 2), round(600 - width / 2)
    expected = pixels[top : top + height, left : left + width]
    inner = np.s_[100:-20, 40:-60]
    # The middle of the picture may be between two pixels of the screen.
    shifts = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    exact = [shift for shift in shifts if (np.roll(expected, shift, (0, 1)) == view)[inner].all()]
    assert len(exact) == 1
    pressed = (
        "[...document.querySelectorAll('.slider-bar [aria-pressed=true]')].map((b) => b.innerText).join()"
    )
    assert browser.run(pressed) == "100%"
    browser.key("+", 187)
    browser.wait(f"{pressed} === ''")
    browser.key("0", 48)
    browser.wait(f"{pressed} === 'Fit'")


@pytest.mark.parametrize(
    ("dtype", "before", "after", "words"),
    [
        (
            "uint16",
            (1001, 40000, 65535),
            (1002, 39999, 65533),
            ("1001 40000 65535", "1002 39999 65533", "1 -1 -2"),
        ),
        ("uint16", (3, 700, 1023), (4, 690, 1020), ("3 700 1023", "4 690 1020", "1 -10 -3")),
        ("uint8", (7, 8, 9), (9, 8, 7), ("7 8 9", "9 8 7", "2 0 -2")),
        ("float32", (0.125, 1.5, -0.25), (0.25, 1, 0), ("0.125 1.5 -0.25", "0.25 1 0", "0.125 -0.5 0.25")),
        ("int32", (70000, -5, 0), (70001, -5, 2), ("70000 -5 0", "70001 -5 2", "1 0 2")),
    ],
)
def test_values_under_the_pointer(dtype, before, after, words, show):
    rng = np.random.default_rng(0)
    pictures = []
    for values in (before, after):
        pixels = rng.random((61, 81, 3)) * max(values)
        pixels[30, 40] = values
        pictures.append(pixels.astype(dtype))
    browser = show(*pictures)
    browser.mouse("Moved", browser.place(CANVAS))
    browser.wait(f"!{VALUES}.includes('…') && {VALUES}.startsWith('x ')")
    browser.mouse("Moved", browser.place(CANVAS))  # where it is now that the line of values has its height
    browser.wait(f"{VALUES}.startsWith('x 40, y 30')")
    assert browser.run(VALUES) == "x 40, y 30 · Before {} · After {} · difference {}".format(*words)


def test_values_of_a_file_of_16_bit(show, tmp_path):
    """All that a real PNG file can have: grey, alpha, several filters of its rows."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:201, :301]
    smooth = (x * 150 + y * 40 + rng.integers(0, 9, x.shape)).astype(np.uint16)
    paths = [tmp_path / name for name in ("before.png", "after.png")]
    for path, add in zip(paths, (0, 500), strict=True):
        write_image(Image(smooth + np.uint16(add), np.full_like(smooth, 65535)), path)
    browser = show(*paths)
    for dx, dy in ((0, 0), (120, 77), (-201, -133)):
        browser.mouse("Moved", browser.place(CANVAS, dx, dy))
        browser.wait(f"!{VALUES}.includes('…') && {VALUES}.startsWith('x')")
        text = browser.run(VALUES)
        column, row = (int(part.split()[1]) for part in text.split(" · ")[0].split(", "))
        value = int(smooth[row, column])
        assert text.endswith(f"Before {value} 65535 · After {value + 500} 65535 · difference 500 0")


def test_fingers(black_and_white):
    """One moves the divider, two zoom and leave it."""
    browser = black_and_white
    browser.send("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=2)
    middle = browser.place(CANVAS)

    def touch(kind, *left):
        points = [{"x": middle["x"] + x, "y": middle["y"], "id": i} for i, x in enumerate(left)]
        browser.send("Input.dispatchTouchEvent", type=f"touch{kind}", touchPoints=points)

    touch("Start", 0)
    for x in range(0, 120, 20):
        touch("Move", x)
    touch("End")
    assert browser.run(SPLIT) > 600
    before = browser.run(SPLIT)
    touch("Start", -50)
    touch("Start", -50, 50)
    for x in range(50, 150, 20):
        touch("Move", -x, x)
    touch("End")
    assert browser.run(SPLIT) == before
    browser.wait("!document.querySelector('.slider-bar [aria-pressed=true]')")  # no longer Fit


def test_a_notebook(browser, tmp_path):
    """The page lies in a frame there, which has no styles of the notebook and lets the wheel scroll."""
    frame = nlrn.compare(np.zeros((60, 80), np.uint8), np.ones((60, 80), np.uint8))._repr_html_()
    (tmp_path / "notebook.html").write_text(f"<!doctype html>{frame}<p style='height: 90rem'>")
    browser.size(800, 700)
    browser.open(f"file://{tmp_path / 'notebook.html'}")
    shown = "document.querySelector('iframe').contentDocument?.querySelector('.slider-tag')?.hidden === false"
    browser.wait(shown)
    at = browser.place("iframe")
    browser.mouse("Moved", at)
    inside = "document.querySelector('iframe').contentDocument"
    browser.wait(
        f"{inside}.querySelector('.slider-values').textContent.endsWith('Before 0 · After 1 · difference 1')"
    )
    browser.mouse("Wheel", at, deltaX=0, deltaY=300)
    browser.wait("scrollY > 0")
    assert browser.run(f"{inside}.querySelector('.slider-bar [aria-pressed=true]').textContent") == "Fit"


def test_an_enlargement(show, tmp_path):
    small = np.zeros((40, 50), np.uint8)
    browser = show(small, np.full((80, 100), 255, np.uint8))
    assert abs(boundary(seen(browser, tmp_path)) - seen(browser, tmp_path).shape[1] / 2) <= 2
    assert "50x40 → 100x80" in browser.run("document.querySelector('.slider-size').textContent")


def test_dark_and_narrow(black_and_white):
    browser = black_and_white
    light = browser.run("getComputedStyle(document.body).backgroundColor")
    browser.size(390, 844, dark=True, phone=True)
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.run("getComputedStyle(document.body).backgroundColor") != light


def test_names_that_look_like_markup(show, tmp_path):
    name = tmp_path / "<b>{{data}}</script>.png"
    try:
        write_image(Image(np.zeros((9, 9), np.uint8)), str(name).replace("/script", "script"))
    except OSError:
        pytest.skip("such names cannot be here")
    path = str(name).replace("/script", "script")
    browser = show(path, path, labels=("</script><i>1", "2"))
    assert "<b>{{data}}" in browser.run("document.title")
    assert browser.run("document.querySelector('.slider-tag').textContent") == "</script><i>1"


CAPTIONS = "[...document.querySelectorAll('.slider-magnifier figcaption')].map((e) => e.textContent)"


def middle_of(browser, side):
    """The pixel in the middle of a side of the magnifier, below which is the one at the pointer."""
    canvas = f"document.querySelectorAll('.slider-magnifier canvas')[{side}]"
    data = f"{canvas}.getContext('2d').getImageData({canvas}.width / 2, {canvas}.height / 2, 1, 1).data"
    return browser.run(f"[...{data}].slice(0, 3)")


def test_the_magnifier(show):
    """Both sides of the pixel under the pointer, then of those to which the keys lead."""
    rng = np.random.default_rng(0)
    before = rng.integers(0, 256, (90, 120, 3), np.uint8)
    after = rng.integers(0, 256, (90, 120, 3), np.uint8)
    browser = show(before, after)
    browser.run("document.querySelector('.slider-bar button:nth-child(4)').click()")
    browser.mouse("Moved", browser.place(CANVAS, dx=-100, dy=30))
    browser.wait(f"{CAPTIONS}.every((text) => / \\d+ \\d+ \\d+$/.test(text))")
    x, y = browser.run(f"{VALUES}.match(/x (\\d+), y (\\d+)/).slice(1).map(Number)")
    assert x < 60
    assert y > 45

    def check(x, y):
        written = [" ".join(map(str, image[y, x])) for image in (before, after)]
        browser.wait(f"{CAPTIONS}[0] === 'Before {written[0]}' && {CAPTIONS}[1] === 'After {written[1]}'")
        assert middle_of(browser, 0) == before[y, x].tolist()
        assert middle_of(browser, 1) == after[y, x].tolist()

    check(x, y)
    browser.key("6", 54)  # means nothing
    browser.run(f"document.querySelector({RANGE!r}).focus()")
    for key, code, dx, dy in (("ArrowRight", 39, 1, 0), ("ArrowUp", 38, 0, -1), ("ArrowLeft", 37, -1, 0)):
        browser.key(key, code, modifiers=8)
        x, y = x + dx, y + dy
        check(x, y)
    browser.mouse("Moved", {"x": 5, "y": 5})  # the magnifier stays when the pointer leaves
    check(x, y)
    browser.key("m", 77)
    browser.wait("document.querySelector('.slider-magnifier').hidden")


def test_the_magnifier_at_the_edge_of_a_larger_result(show):
    """Nothing beside the picture; a result of three times the size is shown in its own pixels."""
    before = np.full((40, 50), 60, np.uint8)
    after = np.full((120, 150), 200, np.uint8)
    browser = show(before, after)
    browser.run(f"document.querySelector({RANGE!r}).focus()")
    browser.key("m", 77)
    browser.wait(f"{CAPTIONS}[1] === 'After 200'")
    for _ in range(60):
        browser.key("ArrowLeft", 37, modifiers=8)
    browser.wait(f"{VALUES}.startsWith('x 0, ')")
    assert [middle_of(browser, side) for side in (0, 1)] == [[60] * 3, [200] * 3]
    drawn = (
        "[...document.querySelectorAll('.slider-magnifier canvas')].map((c) => "
        "[...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((v, i) => i % 4 === 3 && v).length"
        " / (c.width * c.height))"
    )
    shares = browser.run(drawn)
    assert shares == pytest.approx([11 / 21] * 2, abs=0.03)
