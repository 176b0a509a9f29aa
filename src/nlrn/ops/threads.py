"""Threads of a process that was forked from one in which PyTorch has computed.

It has none of the other's threads, and OpenMP would wait for them for ever. So it computes with one, unless it asks for
more (`torch.set_num_threads`), which only a process that has not computed before the fork can use.
"""

from __future__ import annotations

import os
import sys

import torch

if sys.platform != "win32":
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
