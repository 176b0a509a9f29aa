# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
"""
# The non-local block in somebody else's network

Identical at first, better after a short fine-tune.

A small convolutional denoiser sees 7x7 pixels. Images of two flat regions under strong noise call for
averaging over far more. A `NonLocalBlock` goes in before the last layer of the trained network; its value
projection is zero, so nothing changes until it is trained.

    python examples/nonlocal_block.py
"""

# %%
from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from nlrn import NonLocalBlock

SIZE = 24
NOISE = 0.3


def batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clean and noisy images `[count, 1, SIZE, SIZE]`: two grey levels with a vertical edge between them."""
    edge = torch.randint(SIZE // 3, 2 * SIZE // 3, (count, 1, 1, 1), generator=generator)
    levels = torch.rand(count, 2, 1, 1, generator=generator)
    clean = torch.where(torch.arange(SIZE) < edge, levels[:, :1], levels[:, 1:]).expand(count, 1, SIZE, SIZE)
    return clean, clean + NOISE * torch.randn(clean.shape, generator=generator)


def train(network: nn.Module, steps: int, generator: torch.Generator) -> None:
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(steps):
        clean, noisy = batch(8, generator)
        loss = (network(noisy) - clean).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@torch.no_grad()
def psnr(network: nn.Module, clean: Tensor, noisy: Tensor) -> float:
    return -10 * (network(noisy) - clean).square().mean().log10().item()


# %%
def main() -> dict[str, float | bool]:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    clean, noisy = batch(32, generator)

    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 1, 3, padding=1),
    )
    train(network, 300, generator)

    *body, head = copy.deepcopy(network)
    with_block = nn.Sequential(*body, NonLocalBlock(16, 8, window_size=15), head)
    result: dict[str, float | bool] = {
        "noisy": psnr(nn.Identity(), clean, noisy),
        "trained": psnr(network, clean, noisy),
        "identical at first": torch.equal(with_block(noisy), network(noisy)),
    }
    train(network, 100, generator)
    train(with_block, 100, generator)
    result["fine-tuned without block"] = psnr(network, clean, noisy)
    result["fine-tuned with block"] = psnr(with_block, clean, noisy)
    return result


# %%
if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name:26}", value if isinstance(value, bool) else f"{value:.2f} dB")
