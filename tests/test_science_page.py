"""The examples of docs/science.md do what it says."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "science.md"


def test_examples(capsys):
    """All blocks of Python, one after the other; they hold assertions of their own."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 3
    names: dict[str, object] = {}
    exec("\n".join(blocks), names)
    assert capsys.readouterr().out.endswith(" units per electron\n")
    assert len(names["frames"]) == 3
