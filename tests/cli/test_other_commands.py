"""compare, add-noise, models, import-tf, benchmark, and the command as a whole."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nlrn.files.images import Image, read_image, write_image
from nlrn.models.zoo import CLASSICAL, MODELS
from nlrn.version import __version__

OFFICIAL = Path(__file__).parents[1] / "data" / "official_tf" / "v0_corr_T5" / "model"


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(Image(pixels), path)


def test_help_is_quick_and_loads_nothing_large():
    """In seconds of the processor, which other work beside the tests does not change."""
    code = "import sys\nfrom nlrn.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\nprint(*sys.modules)"

    def processor_seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    times = []
    for _ in range(3):
        before = processor_seconds()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        times.append(processor_seconds() - before)
    assert min(times) < 0.5
    assert not {"torch", "numpy", "PIL", "skimage"} & set(done.stdout.split())
    for command in ("denoise", "compare", "add-noise", "models", "import-tf", "train", "benchmark"):
        assert command in done.stdout


def test_version(nlrn):
    assert nlrn("--version").out == nlrn("-V").out == f"nlrn {__version__}\n"
    assert nlrn("--version").code == 0


def test_help(nlrn):
    """Without a command too, which is not an error."""
    outcome = nlrn()
    assert outcome.code == 0
    assert outcome.out == nlrn("-h").out == nlrn("--help").out
    assert "denoise" in outcome.out
    assert "--sigma" in nlrn("denoise", "-h").out


def test_compare(nlrn, tmp_path):
    write(tmp_path / "a.png", np.full((16, 16), 128, np.uint8))
    write(tmp_path / "b.png", np.full((16, 16), 130, np.uint8))
    assert nlrn("compare", "a.png", "b.png").out.startswith("PSNR  42.11 dB\nSSIM  0.99")
    assert json.loads(nlrn("compare", "a.png", "b.png", "--json").out)["psnr"] == pytest.approx(42.1102)
    assert "identical" in nlrn("compare", "a.png", "a.png").out
    assert json.loads(nlrn("compare", "a.png", "a.png", "--json").out) == {
        "psnr": None,
        "ssim": pytest.approx(1.0),
        "identical": True,
    }


def test_compare_deep_with_shallow(nlrn, tmp_path):
    write(tmp_path / "a.png", np.full((16, 16), 128, np.uint8))
    write(tmp_path / "b.png", np.full((16, 16), 128 * 257, np.uint16))
    assert "identical" in nlrn("compare", "a.png", "b.png").out


def test_compare_refuses(nlrn, tmp_path):
    write(tmp_path / "a.png", np.zeros((16, 16), np.uint8))
    write(tmp_path / "b.png", np.zeros((16, 17), np.uint8))
    write(tmp_path / "c.png", np.zeros((16, 16, 3), np.uint8))
    outcome = nlrn("compare", "a.png", "b.png")
    assert (outcome.code, outcome.err) == (
        2,
        "nlrn: a.png has 16x16 pixels and b.png has 17x16; sizes must agree\n",
    )
    assert "a.png is grey and c.png is RGB" in nlrn("compare", "a.png", "c.png").err
    assert nlrn("compare", "a.png", "nosuch.png").code == 2


def test_compare_in_other_units(nlrn, tmp_path):
    from nlrn.files.images import Image, write_image

    for name, value in (("a", 1000.0), ("b", 1010.0)):
        write_image(Image(np.full((16, 16), value, np.float32), format="TIFF"), tmp_path / f"{name}.tif")
    refused = nlrn("compare", "a.tif", "b.tif")
    assert refused.code == 2
    assert "give its white as --data-range" in refused.err
    outcome = nlrn("compare", "a.tif", "b.tif", "--data-range", 4095)
    assert outcome.out.startswith("PSNR  52.25 dB\n")  # 20 log10(4095 / 10)


def test_compare_says_that_it_leaves_alpha_out(nlrn, tmp_path):
    from nlrn.files.images import Image, write_image

    pixels = np.zeros((16, 16), np.uint8)
    write_image(Image(pixels, alpha=pixels), tmp_path / "a.png")
    write_image(Image(pixels, alpha=pixels + 9), tmp_path / "b.png")
    assert nlrn("compare", "a.png", "b.png").err == "note: transparency is not measured\n"


def test_compare_against_a_clean_image(nlrn, tmp_path):
    for name, value in (("clean", 128), ("before", 138), ("after", 130)):
        write(tmp_path / f"{name}.png", np.full((16, 16), value, np.uint8))
    pair = ("compare", "before.png", "after.png", "--reference", "clean.png")
    lines = nlrn(*pair).out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["before  PSNR 28.13 dB", "after   PSNR 42.11 dB"]
    assert json.loads(nlrn(*pair, "--json").out)["after"]["psnr"] == pytest.approx(42.1102)
    write(tmp_path / "small.png", np.zeros((8, 8), np.uint8))
    smaller = nlrn("compare", "small.png", "after.png", "--reference", "clean.png")
    assert smaller.out.startswith("before  is of another size\nafter   PSNR 42.11 dB")
    other = nlrn("compare", "after.png", "clean.png", "--reference", "small.png")
    assert "after.png has 16x16 pixels and small.png has 8x8; sizes must agree" in other.err


def test_compare_as_a_page(nlrn, tmp_path):
    for name, value in (("a", 128), ("b", 130)):
        write(tmp_path / f"{name}.png", np.full((16, 16), value, np.uint8))
    outcome = nlrn("compare", "a.png", "b.png", "--html", "page.html", "--reference", "a.png")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[-1] == "page.html  0.0 MB"
    page = (tmp_path / "page.html").read_text()
    assert "<title>a.png and b.png</title>" in page
    assert "Before: identical; After: PSNR 42.11 dB" in page
    told = nlrn("compare", "a.png", "b.png", "--html", "page.html", "--overwrite", "--json")
    assert json.loads(told.out) == {"html": "page.html", "bytes": (tmp_path / "page.html").stat().st_size}


def test_compare_refuses_pages(nlrn, tmp_path):
    write(tmp_path / "a.png", np.zeros((16, 16), np.uint8))
    write(tmp_path / "b.png", np.zeros((16, 17), np.uint8))
    (tmp_path / "old.html").write_text("mine")
    for arguments, message in (
        (("a.png", "a.png", "--html", "old.html"), "old.html exists; pass --overwrite to replace it"),
        (("a.png", "a.png", "--html", "a.png", "--overwrite"), "the page a.png is an input itself"),
        (("a.png", "a.png", "--html", "."), "the page . is a folder"),
        (("a.png", "a.png", "--html", "-"), "--html takes the name of a file"),
        (("a.png", "a.png", "--html", "no/page.html"), "the folder of the page no/page.html does not exist"),
        (("a.png", "b.png", "--html", "page.html"), "before has 16x16 pixels and after has 17x16"),
    ):
        outcome = nlrn("compare", *arguments)
        assert outcome.code == 2
        assert message in outcome.err
    assert (tmp_path / "old.html").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "old.html"]


def test_inputs_are_not_overwritten(nlrn, tmp_path):
    """Not even with --overwrite, and whatever the command."""
    write(tmp_path / "a.png", np.zeros((16, 16), np.uint8))
    for arguments, message in (
        (("add-noise", "a.png", "-o", "a.png"), "the output a.png is the input itself"),
        (("export-weights", "a.safetensors", "-o", "a.safetensors"), "is the input itself"),
        (("export-weights", "a.safetensors", "-o", "card.md"), "must be named *.safetensors, got card.md"),
        (("import-tf", "a.png", "-o", "a.png"), "must be named *.safetensors, got a.png"),
    ):
        (tmp_path / "a.safetensors").write_text("weights")
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        outcome = nlrn(*arguments, "--overwrite")
        assert outcome.code == 2
        assert message in outcome.err
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_add_noise(nlrn, tmp_path):
    write(tmp_path / "a.png", np.full((128, 128), 128, np.uint8))
    assert nlrn("add-noise", "a.png", "-o", "b.png", "--sigma", 10).code == 0
    noisy = read_image(tmp_path / "b.png").pixels.astype(float)
    assert noisy.std() == pytest.approx(10, rel=0.03)
    assert nlrn("add-noise", "a.png", "-o", "b.png").code == 2
    nlrn("add-noise", "a.png", "-o", "c.png", "--sigma", 10)
    nlrn("add-noise", "a.png", "-o", "d.png", "--sigma", 10, "--seed", 1)
    assert (tmp_path / "c.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "d.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_models(nlrn, monkeypatch):
    """A line a model, on 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    listed = nlrn("models").out
    lines = listed.splitlines()[1 : 1 + len(MODELS) + len(CLASSICAL)]
    for line, (name, entry) in zip(lines, (MODELS | CLASSICAL).items(), strict=True):
        assert line.split()[0] == name
        assert line.rstrip().endswith(entry.psnr)
    for line, entry in zip(lines, MODELS.values(), strict=False):
        assert f" {round(entry.parameters / 1000)}k " in line
    assert all(name in listed and entry.about in listed for name, entry in CLASSICAL.items())
    backends = nlrn("models", "--backends").out
    assert "chunked" in backends
    assert all("experimental" in line for line in backends.splitlines() if "triton " in line)
    assert "CUDA graphs" in backends
    assert backends.count("in use") == 1 + torch.cuda.is_available()


def test_a_method_without_weights(nlrn):
    write(Path("a.png"), np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8))
    outcome = nlrn("denoise", "a.png", "--model", "bm3d", "--sigma", 12, "-o", "b.png")
    assert outcome.code == 0, outcome.err
    assert "bm3d, sigma 12.0" in outcome.out + outcome.err
    for option, message in (
        (("--steps", 2), "no steps to choose"),
        (("--window", 45), "no window to choose"),
    ):
        outcome = nlrn("denoise", "a.png", "--model", "bm3d", *option, "-o", "c.png")
        assert outcome.code == 2
        assert message in outcome.err
    Path("tiny.yaml").write_text("model: {channels: 1}\n")
    outcome = nlrn("train", "tiny.yaml", "--data", ".", "--steps", 1, "--init", "bm3d")
    assert outcome.code == 2
    assert "starts from the weights of a network, and bm3d has none" in outcome.err


def test_import_tf_then_denoise(nlrn, tmp_path):
    outcome = nlrn("import-tf", OFFICIAL, "-o", "official.safetensors")
    assert outcome.code == 0
    for said in ("first generation", "5 steps", "0..255", "whole patch", "patches 45x45, stride 7"):
        assert said in outcome.out
    write(tmp_path / "a.png", np.random.default_rng(0).integers(90, 160, (48, 50), dtype=np.uint8))
    whole = nlrn("denoise", "a.png", "--model", "official.safetensors")
    assert whole.code == 0
    assert "approximate" not in whole.err
    windowed = nlrn("denoise", "a.png", "--model", "official.safetensors", "--window", 45, "-o", "b.png")
    assert windowed.code == 0
    assert "note: approximate: official.safetensors was not trained with a window of 45" in windowed.err
    a, b = (read_image(tmp_path / name).pixels for name in ("a-denoised.png", "b.png"))
    assert a.shape == b.shape
    assert not np.array_equal(a, b)
    assert nlrn("import-tf", OFFICIAL, "-o", "official.safetensors").code == 2
    assert nlrn("import-tf", tmp_path / "nothing", "-o", "x.safetensors").code == 2
    assert not (tmp_path / "x.safetensors").exists()


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(2):
        write(tmp_path / "data" / "Set12" / f"{i}.png", rng.integers(60, 190, (24, 20), dtype=np.uint8))
    write(tmp_path / "data" / "CBSD68" / "c.png", rng.integers(60, 190, (24, 20, 3), dtype=np.uint8))
    return tmp_path / "data"


def test_benchmark(nlrn, data, tmp_path):
    outcome = nlrn(
        *("benchmark", "denoise", "--data", data, "--sets", "Set12,CBSD68", "--sigmas", "15,25"),
        *("--steps", "2,6", "--out", "results"),
    )
    assert outcome.code == 0, outcome.err
    assert "33.16" in outcome.out
    results = json.loads((tmp_path / "results" / "results.json").read_text())["results"]
    assert len(results) == 8
    assert {(r["dataset"], r["model"]) for r in results} == {
        ("Set12", "nlrn-small-gray"),
        ("CBSD68", "nlrn-small-color"),
    }
    assert [len(r["images"]) for r in results] == [2, 2, 2, 2, 1, 1, 1, 1]
    table = (tmp_path / "results" / "table.md").read_text()
    assert table.count("\n") == 10
    assert "| nlrn-small-gray | 2 |" in table
    sheet, plot = (read_image(tmp_path / "results" / name).pixels for name in ("sheet.png", "plot.png"))
    assert sheet.shape[2] == 3
    assert plot.shape == (4 * 480, 720, 3)  # two sets at two levels, each with two numbers of steps
    again = nlrn("benchmark", "denoise", "--data", data, "--sets", "Set12", "--out", "results")
    assert again.code == 2
    assert "results.json exists; pass --overwrite" in again.err


def test_benchmark_of_all_models(nlrn, data, tmp_path):
    """One table, with the figure that the literature gives each method; colour sets get the models for colour."""
    options = ("--sets", "Set12,CBSD68", "--sigmas", 25, "--models", "all", "--max-images", 1, "--out", "all")
    outcome = nlrn("benchmark", "denoise", "--data", data, *options)
    assert outcome.code == 0, outcome.err
    results = json.loads((tmp_path / "all" / "results.json").read_text())["results"]
    measured = {(result["dataset"].removesuffix("[:1]"), result["model"]) for result in results}
    for dataset, channels in (("Set12", 1), ("CBSD68", 3)):
        networks = {n for n, entry in MODELS.items() if (entry.task, entry.channels) == ("denoise", channels)}
        assert {model for name, model in measured if name == dataset} == networks | set(CLASSICAL)
    some = nlrn(
        *("benchmark", "denoise", "--data", data, "--sets", "Set12", "--sigmas", 25), "--models", "bm3d, nlm"
    )
    assert some.code == 0, some.err
    lines = {line.split()[2]: line.split() for line in some.out.splitlines() if line.startswith("Set12")}
    assert "published" in some.out
    assert lines["bm3d"][-2] == "29.97"
    assert lines.keys() == {"bm3d", "nlm"}


def test_benchmark_of_a_part_is_not_called_the_set(nlrn, data):
    options = ("--sets", "Set12", "--sigmas", "25", "--max-images", 1, "--official-patches", "--steps", 2)
    outcome = nlrn("benchmark", "denoise", "--data", data, *options)
    assert outcome.code == 0
    assert "Set12[:1]" in outcome.out
    assert "30.80" not in outcome.out
    assert "official patches 45x45, stride 7" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sets", "Set13"), "no image set Set13"),
        (("--sigmas", "auto"), "--sigmas must be numbers"),
        (("--sigmas", "15,x"), "--sigmas must be numbers separated by commas, got '15,x'"),
        (("--sigmas", "-1"), "--sigmas must lie between 0 and 255"),
        (("--steps", "x"), "--steps must be numbers"),
        (("--sets", "Set12", "--steps", "3"), "can stop after 2, 4, 6 steps, got steps=3"),
        (("--sets", "Set12", "--model", "nope"), "no model and no weight file 'nope'"),
        (("--sets", "Set12", "--models", "bm3d,nope"), "no model and no weight file 'nope'"),
        (("--model", "bm3d", "--models", "all"), "--model and --models exclude each other"),
    ],
)
def test_benchmark_refuses(nlrn, data, arguments, message):
    outcome = nlrn("benchmark", "denoise", "--data", data, *arguments)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert message in outcome.err


def test_a_restoration_does_not_import_the_compiler():
    """`torch._dynamo` takes as long as PyTorch itself; only `torch.compile`, export and training need it."""
    code = (
        "import sys, numpy, nlrn\n"
        "image = numpy.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype('uint8')\n"
        "nlrn.denoise(image, 20); nlrn.denoise(image); nlrn.upscale(image[..., 0], 2)\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_the_models_as_json(nlrn):
    outcome = nlrn("models", "--json")
    found = {line["name"]: line for line in map(json.loads, outcome.out.splitlines())}
    assert [*found] == [*MODELS, *CLASSICAL]
    assert len({tuple(line) for line in found.values()}) == 1  # the same names in all
    assert found["nlrn-small-color"]["channels"] == 3
    assert found["nlrn-photo"]["sigma"] is None
    assert found["bm3d"]["parameters"] is None
    assert nlrn("models", "--json", "--backends").code == 2
