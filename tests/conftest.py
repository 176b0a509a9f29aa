"""Shared fixtures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import CHROMIUM, Browser

ROOT = Path(__file__).resolve().parent.parent

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers that each use every core wait for one another; this is read when PyTorch is imported.
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture
def shared_dir() -> Path:
    """Data sets and fixtures that are not part of the project (`NLRN_SHARED`, by default `../shared`)."""
    path = Path(os.environ.get("NLRN_SHARED", ROOT.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"needs the data sets of NLRN_SHARED, and {path} does not exist")
    return path


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.empty` and its like return NaN (floats), so that reading memory that nobody wrote shows."""
    torch = pytest.importorskip("torch")
    pytest.importorskip(
        "torch._dynamo"
    )  # which knows functions of torch by what they are when it is imported
    empty, empty_like = torch.empty, torch.empty_like

    def poison(tensor):
        return tensor.fill_(float("nan")) if tensor.is_floating_point() and not tensor.is_meta else tensor

    def poisoned_empty(*args, **kwargs):
        return poison(empty(*args, **kwargs))

    def poisoned_empty_like(*args, **kwargs):
        return poison(empty_like(*args, **kwargs))

    monkeypatch.setattr(torch, "empty", poisoned_empty)
    monkeypatch.setattr(torch, "empty_like", poisoned_empty_like)
    new_empty = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *args, **kwargs: poison(new_empty(*args, **kwargs)))


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """A headless Chromium, which must have met no error in the end."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    browser = Browser(tmp_path / "profile")
    yield browser
    faults = browser.faults()
    browser.close()
    assert not faults


def _tiny_model(folder: Path, channels: int, task: str = "denoise") -> Path:
    import torch

    from nlrn import NLRN, NLRNConfig
    from nlrn.models.weights_file import save_weights

    config = NLRNConfig(
        channels=channels,
        width=8,
        embedding=4,
        num_steps=2,
        window_size=5,
        heads=(1, 2),
        noise_channel=task == "denoise",
        sigma_range=(0.0, 1.0) if task == "denoise" else None,
        task=task,
    )
    path = folder / f"tiny-{channels}.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(channels)
        model = NLRN(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        save_weights(path, config, model.state_dict())
    return path


@pytest.fixture(scope="session")
def tiny_grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weight file of a tiny grey model with heads after steps 1 and 2."""
    return _tiny_model(tmp_path_factory.mktemp("models"), 1)


@pytest.fixture(scope="session")
def tiny_colour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for RGB."""
    return _tiny_model(tmp_path_factory.mktemp("models"), 3)


@pytest.fixture(scope="session")
def tiny_upscaler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weight file of a tiny model for super-resolution."""
    return _tiny_model(tmp_path_factory.mktemp("models"), 1, "upscale")


@pytest.fixture(scope="session")
def tiny_dejpeg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weight file of a tiny model for JPEG artifacts in RGB."""
    return _tiny_model(tmp_path_factory.mktemp("models"), 3, "dejpeg")
