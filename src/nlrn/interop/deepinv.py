"""Networks as denoisers of deepinv, for plug-and-play and other reconstruction that calls `denoiser(x, sigma)`."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ..models.contract import DeclaredModel
from ..models.zoo import load_model


class NLRNDenoiser(nn.Module):
    """A denoiser of nlrn under deepinv's call, `denoiser(x, sigma)`. deepinv itself is not needed.

    An algorithm calls its denoiser with any sigma. A model knows a range: below it the lowest level serves; above it
    the image is shrunk towards its mean until its noise is at the highest level, `s = high / sigma`, restored, and
    stretched again, as the noise of `s x` is `s sigma`. Only networks have gradients with respect to x.

    Args:
        model: a name of `nlrn models` for denoising, a weight file, a name on the Hub, or a model that declares itself.
        device: of its weights.

    Raises:
        ValueError: a model for another task, or one that takes no noise level.

    Source of the call: `deepinv.models.Denoiser`, https://deepinv.github.io.

    Example:
        >>> import torch
        >>> from nlrn.interop.deepinv import NLRNDenoiser
        >>> NLRNDenoiser("nlrn-small-gray")(torch.rand(2, 1, 16, 16), torch.tensor([0.05, 0.4])).shape
        torch.Size([2, 1, 16, 16])
    """

    def __init__(
        self, model: str | Path | DeclaredModel = "nlrn-gray", device: str | torch.device = "cpu"
    ) -> None:
        super().__init__()
        self.model = load_model(model, device=device) if isinstance(model, str | Path) else model
        info = self.model.info
        if info.task != "denoise" or info.sigma_range is None:
            raise ValueError(
                f"expected a model for denoising that takes sigma, got {info.name} for {info.task} "
                f"with sigma_range={info.sigma_range}"
            )
        self.sigma_range: tuple[float, float] = info.sigma_range

    def forward(self, x: Tensor, sigma: float | Tensor | None = None, **kwargs: object) -> Tensor:
        """The denoised images.

        Args:
            x: `[B, C, H, W]` of any range in which white less black is 1.
            sigma: standard deviation of the noise in the same units, one for all, or one an image: a number, or a
                tensor of 1 or B numbers, such as `[B]` or `[B, 1, 1, 1]`.
            kwargs: deepinv hands on whatever else its algorithms have; ignored.

        Returns:
            A tensor of the shape, dtype and device of `x`, not clipped.

        Raises:
            ValueError: sigma missing, negative, not finite or of another shape, and what the model refuses.
        """
        low, high = self.sigma_range
        level = self._levels(x, sigma)
        known = level.clamp(low, high)
        if bool((level <= high).all()):
            restored: Tensor = self.model(x, known)
            return restored
        mean, scale = x.mean((1, 2, 3), keepdim=True), (known / level)[:, None, None, None]
        scale = torch.where(level[:, None, None, None] > high, scale, 1.0)
        stretched: Tensor = (self.model(mean + scale * (x - mean), known) - mean) / scale + mean
        return stretched

    def _levels(self, x: Tensor, sigma: float | Tensor | None) -> Tensor:
        """Sigma as `[B]`."""
        if sigma is None:
            raise ValueError("expected sigma, the standard deviation of the noise, got None")
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).detach()
        if level.numel() not in (1, x.shape[0]):
            raise ValueError(
                f"sigma must be one number or one per image ({x.shape[0]}), got shape {tuple(level.shape)}"
            )
        if not bool((torch.isfinite(level) & (level >= 0)).all()):
            raise ValueError(f"sigma must be finite and >= 0, got {level.flatten().tolist()}")
        return level.flatten().expand(x.shape[0])
