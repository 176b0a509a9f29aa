"""The architectures of other denoisers have the parameters that were published, and run."""

from __future__ import annotations

import pytest
import torch
from benchmarks.peers import PEERS


@pytest.mark.parametrize("name", PEERS)
def test_parameters(name):
    with torch.device("meta"):
        network = PEERS[name].build()
    count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert count == pytest.approx(PEERS[name].parameters, abs=0.05)
    if name != "SwinIR":  # whose windows are looked up
        assert network(torch.empty(1, 1, 32, 48, device="meta")).shape == (1, 1, 32, 48)
