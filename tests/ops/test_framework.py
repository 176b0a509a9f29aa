"""The non-local framework against a dense float64 reference, which follows the definitions and knows no features."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from nlrn.ops import framework
from nlrn.ops.framework import (
    Affinity,
    DotProduct,
    EmbeddedGaussian,
    Gaussian,
    Identity,
    Linear,
    MostSimilar,
    Patch,
    PatchDistance,
    SymmetricEmbeddedGaussian,
    WholeImage,
    Window,
    nonlocal_filter,
)
from nlrn.ops.patches import average_patches, patches_around

CHANNELS = 2


class Laplacian(Affinity):
    """`exp(-|x_i - x_j|_1)`: an affinity that is no inner product."""

    inner_product = False

    def features(self, image):
        return image, image

    def logits(self, query, key):
        return -(query[:, :, None] - key).abs().sum(0)


def random(*shape, seed=0, dtype=torch.float64):
    values = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return values.to(dtype)


AFFINITIES = {
    "gaussian": lambda p: Gaussian(p["h"]),
    "patch-distance": lambda p: PatchDistance(p["h"], 5, 1.3),
    "embedded": lambda p: EmbeddedGaussian(p["theta"], p["psi"]),
    "symmetric": lambda p: SymmetricEmbeddedGaussian(p["theta"]),
    "dot": lambda p: DotProduct(p["theta"], p["psi"]),
    "plain-dot": lambda p: DotProduct(),
    "laplacian": lambda p: Laplacian(),
}
EMBEDDINGS = {
    "identity": lambda p: Identity(),
    "linear": lambda p: Linear(p["g"]),
    "patch": lambda p: Patch(3),
}
NEIGHBOURHOODS = {
    "window": Window(5),
    "large-window": Window(31),
    "whole": WholeImage(),
    "similar": MostSimilar(6, patch_size=3, search_size=5),
}
SIZES = [(1, 1), (6, 5), (1, 9)]


def parameters(dtype=torch.float64):
    shapes = {"theta": (3, CHANNELS), "psi": (3, CHANNELS), "g": (4, CHANNELS)}
    made = {name: random(*shape, seed=i + 5, dtype=dtype) for i, (name, shape) in enumerate(shapes.items())}
    made["h"] = torch.tensor(1.5, dtype=dtype)
    return made


def patches(image, size):
    """`[B, N, C, size^2]` by numpy's own mirroring."""
    height, width = image.shape[2:]
    at = np.pad(np.arange(height * width).reshape(height, width), size // 2, mode="reflect")
    at = np.lib.stride_tricks.sliding_window_view(at, (size, size)).reshape(height * width, -1)
    return image.flatten(2)[:, :, torch.from_numpy(at.copy())].transpose(1, 2)


def dense_affinity(name, image, p):
    """Phi `[B, N, N]`."""
    x = image.flatten(2).transpose(1, 2)
    difference = x[:, :, None] - x[:, None]
    theta, psi = x @ p["theta"].T, x @ p["psi"].T
    if name == "gaussian":
        return torch.exp(-difference.square().sum(-1) / p["h"] ** 2)
    if name == "patch-distance":
        offsets = np.arange(-2, 3)
        w = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.3**2)).ravel()
        far = patches(image, 5)[:, :, None] - patches(image, 5)[:, None]
        return torch.exp(-(far.square().mean(-2) @ torch.from_numpy(w / w.sum())) / p["h"] ** 2)
    if name == "laplacian":
        return torch.exp(-difference.abs().sum(-1))
    pairs = {"embedded": (theta, psi), "symmetric": (theta, theta), "dot": (theta, psi), "plain-dot": (x, x)}
    a, b = pairs[name]
    logits = a @ b.mT
    return logits if name in ("dot", "plain-dot") else torch.exp(logits)


def dense_neighbourhood(neighbourhood, guide):
    """Which pixels each pixel sees, bool `[B, N, N]`."""
    batch, _, height, width = guide.shape
    y, x = (t.flatten() for t in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    far = torch.maximum((y[:, None] - y).abs(), (x[:, None] - x).abs())
    if isinstance(neighbourhood, WholeImage):
        return torch.ones(batch, height * width, height * width, dtype=torch.bool)
    if isinstance(neighbourhood, Window):
        return (far <= neighbourhood.size // 2).expand(batch, -1, -1)
    p = patches(guide.detach(), neighbourhood.patch_size)
    distance = (p[:, :, None] - p[:, None]).square().mean((-1, -2))
    distance = distance.masked_fill(far > neighbourhood.search_size // 2, torch.inf)
    sees = torch.zeros_like(distance, dtype=torch.bool)
    nearest = distance.argsort(-1)[:, :, : neighbourhood.number]
    return sees.scatter_(2, nearest, True) & distance.isfinite()


def dense(image, guide, name, embedding, neighbourhood, p):
    sees = dense_neighbourhood(neighbourhood, guide)
    phi = dense_affinity(name, guide, p) * sees
    values = {
        "identity": lambda: image.flatten(2).transpose(1, 2),
        "linear": lambda: image.flatten(2).transpose(1, 2) @ p["g"].T,
        "patch": lambda: patches(image, 3).flatten(2),
    }[embedding]()
    delta = sees.sum(-1) if name in ("dot", "plain-dot") else phi.sum(-1)
    return (phi @ values / delta[..., None]).transpose(1, 2).unflatten(2, image.shape[2:])


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("where", NEIGHBOURHOODS)
@pytest.mark.parametrize("affinity", AFFINITIES)
def test_equals_the_definition(affinity, where, size):
    """Forward and gradients of image, guide and parameters, with each embedding."""
    p = {name: value.requires_grad_() for name, value in parameters().items()}
    image = random(2, CHANNELS, *size, seed=1).requires_grad_()
    guide = (image.detach() + 0.1 * random(2, CHANNELS, *size, seed=2)).requires_grad_()
    inputs = [image, guide, *p.values()]
    neighbourhood = NEIGHBOURHOODS[where]
    for name, embedding in EMBEDDINGS.items():
        z = nonlocal_filter(image, AFFINITIES[affinity](p), embedding(p), neighbourhood, guide=guide)
        expected = dense(image, guide, affinity, name, neighbourhood, p)
        torch.testing.assert_close(z, expected, rtol=0, atol=1e-12)
        weights = random(*z.shape, seed=3)
        found, right = (
            torch.autograd.grad((out * weights).sum(), inputs, allow_unused=True) for out in (z, expected)
        )
        for which, a, b in zip(["image", "guide", *p], found, right, strict=True):
            a, b = (torch.zeros(1) if g is None else g for g in (a, b))
            assert (a - b).abs().max() < 1e-10, f"gradient of {which}"


@pytest.mark.parametrize("where", NEIGHBOURHOODS)
@pytest.mark.parametrize("affinity", AFFINITIES)
def test_float32_and_without_gradients(affinity, where):
    p = parameters(torch.float32)
    image = random(1, CHANNELS, 13, 11, dtype=torch.float32)
    z = nonlocal_filter(image, AFFINITIES[affinity](p), Patch(3), NEIGHBOURHOODS[where])
    expected = dense(image.double(), image.double(), affinity, "patch", NEIGHBOURHOODS[where], parameters())
    assert z.dtype == torch.float32
    assert (z - expected).abs().max() < 2e-5


@pytest.mark.parametrize("where", ["window", "whole", "similar"])
@pytest.mark.parametrize("affinity", ["patch-distance", "dot", "laplacian"])
def test_little_memory(affinity, where, monkeypatch):
    """Bands, and pieces of few pixels, give the same numbers and gradients."""
    p = {name: value.requires_grad_() for name, value in parameters().items()}
    image = random(1, CHANNELS, 40, 7).requires_grad_()
    sizes = []
    whole_band = framework._band
    monkeypatch.setattr(framework, "_band", lambda x, *rest: sizes.append(x.shape[2]) or whole_band(x, *rest))
    results = []
    for memory in (1 << 30, 300_000):
        z = nonlocal_filter(
            image, AFFINITIES[affinity](p), Identity(), NEIGHBOURHOODS[where], max_memory=memory
        )
        results.append([z, *torch.autograd.grad(z.square().sum(), [image, *p.values()], allow_unused=True)])
    for a, b in itertools.zip_longest(*results):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    if where == "window" and affinity == "patch-distance":
        assert max(sizes[1:]) < 40


def test_distances_in_float32_far_from_the_origin():
    """`|a|^2` and `2 a.b` cancel; around the mean what is left is exact enough."""
    image = 0.8 + 0.02 * random(1, CHANNELS, 20, 20, seed=4).float()
    z = nonlocal_filter(image, Gaussian(0.01), neighbourhood=Window(7))
    p = {**parameters(), "h": torch.tensor(0.01)}
    expected = dense(image.double(), image.double(), "gaussian", "identity", Window(7), p)
    assert (z - expected).abs().max() < 2e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(dtype):
    image = torch.rand(1, 1, 12, 12, dtype=dtype)
    z = nonlocal_filter(image, PatchDistance(0.1, 3), neighbourhood=Window(5))
    assert z.dtype == dtype
    exact = nonlocal_filter(image.float(), PatchDistance(0.1, 3), neighbourhood=Window(5))
    assert torch.equal(z, exact.to(dtype))


def test_patches_are_averaged_to_the_image_that_they_are_of():
    image = random(2, 3, 7, 4)
    torch.testing.assert_close(average_patches(patches_around(image, 5), 5), image)
    # What patches say of pixels beyond the border counts for nothing.
    edges = patches_around(image, 3).unflatten(1, (3, 3, 3)).clone()
    edges[:, :, 0, :, 0] = 99
    torch.testing.assert_close(average_patches(edges.flatten(1, 3), 3), image)


def test_a_constant_image_stays():
    image = torch.full((1, 1, 9, 8), 0.3)
    for affinity in (Gaussian(0.1), PatchDistance(0.1, 3)):
        for neighbourhood in NEIGHBOURHOODS.values():
            z = nonlocal_filter(image, affinity, neighbourhood=neighbourhood)
            torch.testing.assert_close(z, image, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian(0.0), "h must be > 0, got 0.0"),
        (lambda: PatchDistance(-1.0), "h must be > 0, got -1.0"),
        (lambda: PatchDistance(1.0, 4), "patch_size must be odd and positive, got 4"),
        (lambda: PatchDistance(1.0, 3, 0.0), "patch_sigma must be > 0, got 0.0"),
        (lambda: Window(6), "size must be odd and positive, got 6"),
        (lambda: Patch(0), "patch_size must be odd and positive, got 0"),
        (lambda: MostSimilar(10, 3, 3), r"number must be 1 to search_size\^2 = 9, got 10"),
        (lambda: nonlocal_filter(torch.zeros(1, 0, 2, 2), Gaussian(1.0)), "image must be .* not empty"),
        (
            lambda: nonlocal_filter(torch.zeros(1, 1, 2, 2), Gaussian(1.0), guide=torch.zeros(1, 1, 2, 3)),
            "guide .* must have the batch and size of image",
        ),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_page_from_a_gaussian_filter_to_the_nlrn():
    """Its code runs in order, and what it claims holds."""
    page = (Path(__file__).parents[2] / "docs" / "framework.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(code) == 11
    exec("\n".join(code), {})
