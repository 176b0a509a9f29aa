"""The examples in docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import nlrn

DOCS = Path(__file__).parents[1] / "docs"
# Modules that cannot be imported without a package that the extra `test` does not bring (napari).
NEEDING = ("nlrn.viewer.napari_widget",)
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(nlrn.__path__, "nlrn.")
    if not module.name.endswith("__main__") and module.name not in NEEDING
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert not failed


def test_the_documentation_includes_what_it_means_to():
    """A formatter once took the includes for Python, and the pages showed them as they were written."""
    lines = [line for page in DOCS.glob("*.md") for line in page.read_text().splitlines() if "--8" in line]
    assert len(lines) >= 3
    for line in lines:
        found = re.fullmatch(r'--8<-- "(.+)"', line)
        assert found, line
        assert (DOCS.parent / found[1]).is_file(), line


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    examples = sum(len(t.examples) for name in MODULES for t in finder.find(importlib.import_module(name)))
    assert examples > 30
