"""A process that was forked from one that has computed."""

from __future__ import annotations

import os
import select
import signal
import sys

import numpy as np
import pytest
import torch

import nlrn


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .*is multi-threaded:DeprecationWarning")
def test_it_computes_the_same():
    """Without the threads of the other, for which OpenMP would wait."""
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = nlrn.denoise(image, 15, model="gaussian")
        torch.ones(1 << 20).add_(1)  # in both threads
        read, write = os.pipe()
        child = os.fork()
        if not child:
            try:
                torch.ones(1 << 20).add_(1)
                os.write(
                    write,
                    b"same"
                    if np.array_equal(nlrn.denoise(image, 15, model="gaussian"), expected)
                    else b"other",
                )
            finally:
                os._exit(0)
        told, _, _ = select.select([read], [], [], 30)
        answer = os.read(read, 16) if told else b"it waits for ever"
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    finally:
        torch.set_num_threads(threads)
    assert answer == b"same"
    assert torch.get_num_threads() == threads
