"""Small networks with random weights and statistics."""

from __future__ import annotations

import torch

from nlrn import NLRN, NLRNConfig

CONFIGS = {
    "propagating": {},
    "no-propagation": {"correlation_propagation": False},
    "whole-image-window": {"window_size": None},
    "stride-2": {"stride": 2, "stem": 5, "window_size": 5, "noise_channel": True, "sigma_range": (0.0, 0.2)},
    "stride-3-colour": {"stride": 3, "stem": 4, "channels": 3, "num_steps": 3, "window_size": 3},
    "stem-whole-image": {"stem": 4, "window_size": None, "correlation_propagation": False},
    "noise-channel": {"noise_channel": True, "sigma_range": (0.0, 0.2), "channels": 3},
}


def network(**options) -> NLRN:
    torch.manual_seed(0)
    small = {"width": 8, "embedding": 4, "num_steps": 3, "window_size": 7, "initialization": "official"}
    model = NLRN(NLRNConfig(**(small | options))).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.bias.data.normal_(std=0.3)
    return model


def peak_difference(a, b):
    return (a - b).abs().max().item()
