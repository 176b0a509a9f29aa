"""Fixtures of the tests of the non-local operation."""

from __future__ import annotations

import libraries
import pytest


@pytest.fixture
def way(request, monkeypatch):
    """A `Way` of `operation.py`, with its C++ library in place."""
    if request.param.kernel:
        libraries.use(request.param.kernel, request.param.dtype, monkeypatch)
    return request.param
