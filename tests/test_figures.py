"""The accuracy figures of README.md and docs/accuracy.md are those of the model cards."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nlrn.models.zoo import CLASSICAL, MODELS, WEIGHTS
from nlrn.version import __version__

ROOT = Path(__file__).parents[1]
FIGURE = r"\d+\.\d\d"


def tables(text):
    """The tables of a page of Markdown: lists of rows of cells, the heading first."""
    blocks = re.findall(r"(?:^\|.*\|\n?)+", text, re.MULTILINE)
    rows = [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in b.splitlines()] for b in blocks
    ]
    return [[heading, *body] for heading, _, *body in rows]


def key(where, number):
    """`("Set12", "25")` from the words before a column's number, such as `Set12, sigma`."""
    return re.split(r",| \(", where)[0].strip(), number


def card_figures(name):
    """The PSNR of a model after its last step as its card has it, by data set and level."""
    card = (WEIGHTS / MODELS[name].file).with_suffix(".md").read_text()
    last = MODELS[name].steps[-1]
    figures = {}
    for heading, *body in tables(card.partition("## Accuracy")[2]):
        current = [row for row in body if row[0] in (f"{last}", f"{last} steps", name)]
        where = ""
        for title, value in zip(heading[1:], current[0][1:] if current else (), strict=False):
            set_and_level = re.fullmatch(r"(.*), (?:sigma |quality |x)?(\d+)", title)
            if set_and_level:
                where = set_and_level[1]
            level = re.fullmatch(r"(?:.*, )?(?:sigma |quality |x)?(\d+)", title)
            figures[key(where, level[1]) if level else key(title, "")] = value
    return figures


CARDS = {name: card_figures(name) for name in MODELS}


def accuracy_rows():
    """`(model, set, level, PSNR)` of every figure in docs/accuracy.md that stands under or beside a model's name."""
    found = []
    for heading, *body in tables((ROOT / "docs" / "accuracy.md").read_text()):
        for row in body:
            cells = dict(zip(heading, row, strict=True))
            level = next((cells[c] for c in ("sigma", "scale", "quality") if c in cells), "")
            found += [(name, row[0], level, cells[name]) for name in MODELS if name in cells]
            if "model" in cells:
                found.append((cells["model"], row[0], level, cells["PSNR"]))
    return found


@pytest.mark.parametrize(
    ("name", "where", "level", "figure"), accuracy_rows(), ids=lambda value: str(value).replace(" ", "-")
)
def test_accuracy_page(name, where, level, figure):
    assert CARDS[name].get(key(where, level)) == figure


def test_every_card_is_on_the_accuracy_page():
    assert {name for name, *_ in accuracy_rows()} == set(MODELS)


def test_readme():
    """Figures in bold are a model's own, and of the model that the row names."""
    checked = 0
    for _, *body in tables((ROOT / "README.md").read_text()):
        for row in body:
            named = [name for name in MODELS if f"`{name}`" in row[0]]
            known = {figure for name in named or MODELS for figure in CARDS[name].values()}
            for figure in re.findall(FIGURE, " ".join(re.findall(r"\*\*(.*?)\*\*", " ".join(row[1:])))):
                assert figure in known, f"no card of {named or 'any model'} has {figure} ({row[0]})"
                checked += 1
    assert checked


@pytest.mark.parametrize("name", MODELS)
def test_listed_figure(name):
    """The figure that `nlrn models` shows stands on the card."""
    assert MODELS[name].psnr.split()[0] in CARDS[name].values()


@pytest.mark.parametrize("name", CLASSICAL)
def test_listed_figure_of_a_method_without_weights(name):
    """The figure that `nlrn models` shows stands on the accuracy page."""
    pages = tables((ROOT / "docs" / "accuracy.md").read_text())
    figures = [
        row[heading.index("PSNR, dB")]
        for heading, *body in pages
        for row in body
        if row[0] == f"`{name}`" and "PSNR, dB" in heading
    ]
    assert figures == [CLASSICAL[name].psnr.split()[0]]


@pytest.mark.parametrize("name", MODELS)
def test_terms_of_the_weights(name):
    card = (WEIGHTS / MODELS[name].file).with_suffix(".md").read_text()
    for text in (card, MODELS[name].licence, (WEIGHTS / "LICENSE.md").read_text()):
        assert "non-commercial" in text
        assert "BSDS500" in text
    assert "LICENSE.md" in card


def test_citation():
    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
