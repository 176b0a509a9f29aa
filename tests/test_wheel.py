"""The wheel: what a user without a checkout gets."""

from __future__ import annotations

import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CODE = """
import sys
import numpy as np
import nlrn
from nlrn.ops.nonlocal_attention import has_native_kernel
import torch
assert nlrn.__file__.startswith(sys.argv[1]), nlrn.__file__
assert has_native_kernel(torch.float32)
noisy = np.random.default_rng(0).normal(128, 25, (40, 48)).clip(0, 255).astype(np.uint8)
assert nlrn.denoise(noisy, sigma=25).std() < 0.3 * noisy.std()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    if not (ROOT / "hatch_build.py").exists():
        pytest.skip("needs a checkout")
    subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pip",
                "wheel",
                str(ROOT),
                "--no-deps",
                "--no-build-isolation",
                "--quiet",
            ),
            *("--wheel-dir", str(folder)),
        ],
        check=True,
    )
    (path,) = folder.glob("*.whl")
    return path


def test_it_holds_kernels_weights_and_types(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    weights = {f"nlrn/models/weights/{path.name}" for path in (ROOT / "src/nlrn/models/weights").iterdir()}
    assert weights <= names
    assert {"nlrn/py.typed", "nlrn/viewer/static/slider.js", "nlrn/viewer/static/compare.html"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests", "benchmarks", "docs")) for name in names)
    if platform.machine() == "x86_64" and sys.platform == "linux":
        kernels = {Path(name).stem for name in names if name.endswith(".so")}
        assert {"avx512", "avx2", "generic"} <= kernels
        assert wheel.name.endswith("linux_x86_64.whl")
        assert "-py3-none-" in wheel.name  # the kernels know nothing of Python


def test_it_restores_away_from_the_checkout(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "site")],
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
