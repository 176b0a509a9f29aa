"""The files that docs/architecture.md names exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
FILES = [
    f"/{path.relative_to(ROOT).as_posix()}"
    for folder in ("src", "tests")
    for path in (ROOT / folder).rglob("*.*")
]
NAMED = sorted(set(re.findall(r"`([\w/]+\.(?:py|cpp|js))`", PAGE)) - {"cli/VERB.py"})


@pytest.mark.parametrize("name", NAMED)
def test_named_files(name):
    assert any(file.endswith(f"/{name}") for file in FILES)


def test_rooms():
    """Every folder of the package has a row."""
    rooms = {path.name for path in (ROOT / "src" / "nlrn").iterdir() if (path / "__init__.py").exists()}
    assert rooms == set(re.findall(r"^\| `(\w+)/`", PAGE.partition("## Where")[0], re.MULTILINE)) | {"cli"}
