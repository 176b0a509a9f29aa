"""Shared fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def shared_dir() -> Path:
    """Data sets and fixtures that are not part of the project (`NLRN_SHARED`, by default `../shared`)."""
    path = Path(os.environ.get("NLRN_SHARED", ROOT.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"needs the data sets of NLRN_SHARED, and {path} does not exist")
    return path


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.empty` returns NaN (floats), so that reading memory that nobody wrote shows."""
    torch = pytest.importorskip("torch")
    empty, empty_like = torch.empty, torch.empty_like

    def poison(tensor):
        return tensor.fill_(float("nan")) if tensor.is_floating_point() and not tensor.is_meta else tensor

    def poisoned_empty(*args, **kwargs):
        return poison(empty(*args, **kwargs))

    def poisoned_empty_like(*args, **kwargs):
        return poison(empty_like(*args, **kwargs))

    monkeypatch.setattr(torch, "empty", poisoned_empty)
    monkeypatch.setattr(torch, "empty_like", poisoned_empty_like)
