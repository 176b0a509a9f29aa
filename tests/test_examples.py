"""The examples run, as scripts and as notebooks, and show what they say."""

from __future__ import annotations

import importlib.util
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio as psnr

from nlrn.viewer import Comparison

EXAMPLES = Path(__file__).parents[1] / "examples"
# poisson_gaussian.py is a part of a training configuration.
NOTEBOOKS = [path for path in sorted(EXAMPLES.glob("*.py")) if path.stem != "poisson_gaussian"]
NOTEBOOK_TOOLS = ("jupytext", "nbclient", "ipykernel")


def names_of(name: str) -> dict[str, object]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells(path):
    """A title, code in cells, and text between them, as jupytext reads them."""
    text = path.read_text()
    cells = re.split(r"^# %%", text, flags=re.MULTILINE)[1:]
    assert cells[0].startswith(' [markdown]\n"""\n# ')
    assert sum(cell.startswith("\n") for cell in cells) >= 2
    assert all(cell.startswith(("\n", ' [markdown]\n"""\n')) for cell in cells)


def test_photographs():
    """Each restoration gains, and the last one of white noise most."""
    found = names_of("photographs")
    gains = {
        name: psnr(found["clean"], found[after]) - psnr(found["clean"], found[name])
        for name, after in (
            ("white", "restored"),
            ("grain", "without_grain"),
            ("rows", "without_rows"),
            ("old", "better"),
        )
    }
    floors = {"white": 7, "grain": 3.5, "rows": 4, "old": 0.4}
    assert {name: gain for name, gain in gains.items() if gain < floors[name]} == {}


def test_microscope_stack():
    found = names_of("microscope_stack")
    assert found["restored"].dtype == np.uint16
    assert found["restored"][:, 33, 10].max() < found["OFFSET"] + 200  # the hot pixel
    before, after = found["errors"]
    assert after < before / 4
    _, counted, restored = found["light"]
    assert restored == pytest.approx(counted, rel=0.02)
    assert found["found"].noise.gain == pytest.approx(found["GAIN"], abs=3 * found["found"].gain_error)


@pytest.mark.slow
def test_adapting():
    found = names_of("adapting")
    noisy, released, adapted = (found["error"](found[name]) for name in ("frames", "released", "adapted"))
    assert released < noisy - 5
    assert adapted < released + 0.1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter's packages
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks(path):
    """Every cell runs in Jupyter, and comparisons are shown as pages."""
    if missing := [name for name in NOTEBOOK_TOOLS if importlib.util.find_spec(name) is None]:
        pytest.skip(f"needs {', '.join(missing)}")
    import jupytext
    from nbclient import NotebookClient

    notebook = jupytext.read(path)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=EXAMPLES.parent)
    shown = [
        output["data"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]
    pages = [data for data in shown if "<iframe" in data.get("text/html", "")]
    assert len(pages) == path.read_text().count("\nnlrn.compare(")


def test_comparisons_are_shown():
    """The last line of a cell is what Jupyter shows; there is one in every example of restored images."""
    assert Comparison._repr_html_
    for name in ("photographs", "microscope_stack", "adapting"):
        cells = re.split(r"^# %%.*$", (EXAMPLES / f"{name}.py").read_text(), flags=re.MULTILINE)
        assert any(
            cell.strip().splitlines()[-1].startswith("nlrn.compare(") for cell in cells if cell.strip()
        )
