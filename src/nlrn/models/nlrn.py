"""The Non-Local Recurrent Network (Liu et al., NeurIPS 2018): configuration and network.

With the image x, the states s and the weights shared over the steps t = 1 .. T:

    s^0 = conv(BN(x))
    s^t = s^0 + conv_b(ReLU(BN_t(conv_a(BN_t(N(ReLU(BN_t(s^{t-1}))))))))     N: `NonLocalBlock`
    y   = x + conv(ReLU(BN(s^T)))

The file is long because it reads from top to bottom: configuration, stem and tail, network.

The convolutions are shared by all steps, the batch norms are not. The paper's symbols in this file: theta =
`query`, psi = `key`, g = `value`, q = `window_size`, T = `num_steps`, l = `embedding`, m = `width`.

With a `stride` r above 1 the same recurrence runs at 1/r of the resolution, between a stem and a tail at full
resolution. This form is not the paper's:

    f   = conv(ReLU(conv(x)))                        `stem` channels at full resolution
    s^0 = conv_r(ReLU(f))                            r x r pixels become one position
    y   = x + conv(ReLU(conv(ReLU(f + up_r(ReLU(BN(s^T)))))))    up_r: a 1x1 convolution, then depth to space
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.depth_to_space import add_depth_to_space
from ..ops.nonlocal_attention import AttentionState
from .contract import ModelInfo, Shape, nearest_known
from .learned_affinities import DEFAULT, AffinityName, check_affinity
from .nonlocal_block import NonLocalBlock, glorot

# The batch norms of which each step has one of its own.
STEP_NORMS = ("attention_norms", "conv_a_norms", "conv_b_norms")


@dataclass(frozen=True)
class NLRNConfig:
    """Everything that defines a network besides its weights.

    Args:
        channels: image channels (1 grey, 3 RGB).
        width: feature channels, also those of the non-local values.
        embedding: channels of the non-local queries and keys.
        num_steps: recurrent steps T.
        window_size: odd side of the non-local window in positions of the recurrence, which are pixels where `stride`
            is 1; `None` is the whole image.
        stride: pixels a side of a position of the recurrence; 1 is the network of the paper.
        stem: channels at full resolution before and after the recurrence; `None` is the network of the paper.
        correlation_propagation: whether the logits of a step are added to those of the next.
        affinity: the weight of a position for another, by a name of `LearnedAffinity`; `"embedded_gaussian"` is the
            paper's. Inference of the others is not in bands: larger images are cut into tiles.
        noise_channel: whether the noise level is an input: one more channel, `4 * sigma`.
        heads: the steps after which the network may stop, in rising order; by default only the last.
            Each has a batch norm of its own; the output convolution is shared.
        initialization: `"official"` is Glorot for every convolution; `"trainable"` moreover starts the value
            projection, `conv_b` and the output convolution at zero (so that every state is s^0 and the output
            is the input) and scales the query and key projections by 0.35.
        task: the task it was trained for.
        sigma_range: the noise levels it was trained for, in units of [0, 1]; `None` for a model that ignores sigma.
        patch_protocol: `(size, stride)` where whole images are restored as averages of overlapping patches, as
            the official code does; `None` where a whole image is one input.

    Raises:
        ValueError: values that do not fit each other.
    """

    channels: int = 1
    width: int = 128
    embedding: int = 64
    num_steps: int = 12
    window_size: int | None = 45
    stride: int = 1
    stem: int | None = None
    correlation_propagation: bool = True
    noise_channel: bool = False
    heads: tuple[int, ...] = ()
    initialization: Literal["trainable", "official"] = "trainable"
    task: str = "denoise"
    sigma_range: tuple[float, float] | None = None
    patch_protocol: tuple[int, int] | None = None
    affinity: AffinityName = DEFAULT

    def __post_init__(self) -> None:
        check_affinity(self.affinity)
        if self.affinity == "dot_product" and self.correlation_propagation:
            raise ValueError(
                "the affinity dot_product has no logits to propagate; set correlation_propagation to false"
            )
        for name in ("channels", "width", "embedding", "num_steps", "stride", "stem"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.stride > 1 and self.stem is None:
            raise ValueError(f"a stride above 1 needs a stem, got stride={self.stride}, stem=None")
        if self.window_size is not None and (self.window_size < 1 or self.window_size % 2 == 0):
            raise ValueError(f"window_size must be odd and positive, or None, got {self.window_size}")
        if self.initialization not in ("trainable", "official"):
            raise ValueError(f"initialization must be 'trainable' or 'official', got {self.initialization!r}")
        if self.noise_channel != (self.sigma_range is not None):
            raise ValueError(
                "a network with a noise channel needs a sigma_range, and one without has none; "
                f"got noise_channel={self.noise_channel}, sigma_range={self.sigma_range}"
            )
        if self.sigma_range is not None and not 0 <= self.sigma_range[0] <= self.sigma_range[1] <= 1:
            raise ValueError(
                f"sigma_range must lie in [0, 1], got {list(self.sigma_range)} (grey levels are / 255)"
            )
        if self.patch_protocol is not None and min(self.patch_protocol) < 1:
            raise ValueError(
                f"patch_protocol must be (size, stride), both positive, got {self.patch_protocol}"
            )
        heads = tuple(self.heads) or (self.num_steps,)
        if list(heads) != sorted(set(heads)) or heads[0] < 1 or heads[-1] != self.num_steps:
            raise ValueError(
                f"heads must rise from at least 1 to num_steps={self.num_steps}, got {self.heads}"
            )
        object.__setattr__(self, "heads", heads)

    @property
    def halo(self) -> int | None:
        """Distance in pixels beyond which an input pixel cannot change an output pixel (`None`: no limit)."""
        if self.window_size is None:
            return None
        # A pixel of a patch lies next to the pixel that it is compared for.
        reach = self.window_size // 2 + 2 + (self.affinity == "patch_distance")
        trunk = self.num_steps * reach
        if self.stem is None:
            return trunk + 2
        # The stem and the tail have two 3x3 convolutions each; tiles begin where a position begins.
        return self.stride * (trunk + 1 + -(-4 // self.stride))

    def positions(self, pixels: int) -> int:
        """The number of positions of the recurrence along a side of so many pixels."""
        return -(-pixels // self.stride)


def norm_relu(norm: nn.Module, features: Tensor) -> Tensor:
    """`ReLU(norm(features))`."""
    return F.relu(norm(features))


def add_norm(norm: nn.Module, features: Tensor, added: Tensor) -> Tensor:
    """`norm(features + added)`."""
    normalized: Tensor = norm(features + added)
    return normalized


def add_norm_relu(norm: nn.Module, features: Tensor, added: Tensor) -> Tensor:
    """`ReLU(norm(features + added))`."""
    return F.relu(norm(features + added))


@dataclass(frozen=True)
class Pointwise:
    """The elementwise operations between the convolutions of a step. Training may compile each into one kernel."""

    norm_relu: Callable[[nn.Module, Tensor], Tensor] = norm_relu
    add_norm: Callable[[nn.Module, Tensor, Tensor], Tensor] = add_norm
    add_norm_relu: Callable[[nn.Module, Tensor, Tensor], Tensor] = add_norm_relu


class Stem(nn.Module):
    """The layers before a recurrence at a part of the resolution: they make the features f, and s^0.

    Args:
        inputs: channels of the input.
        channels: channels of f.
        width: channels of s^0.
        stride: pixels a side of a position of s^0.
    """

    def __init__(self, inputs: int, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv_a = nn.Conv2d(inputs, channels, 3, padding=1)
        self.conv_b = nn.Conv2d(channels, channels, 3, padding=1)
        self.down = nn.Conv2d(channels, width, stride, stride=stride)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """f `[B, channels, H, W]` and s^0 `[B, width, H / stride, W / stride]`; `stride` divides H and W."""
        features = self.conv_b(F.relu(self.conv_a(inputs)))
        return features, self.down(F.relu(features))


class Tail(nn.Module):
    """The layers after a recurrence at a part of the resolution: they make the residual of the image.

    Args:
        width: channels of the recurrence.
        channels: channels of the stem's features.
        outputs: channels of the image.
        stride: pixels a side of a position of the recurrence.
    """

    def __init__(self, width: int, channels: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.up = nn.Conv2d(width, stride**2 * channels, 1)
        self.conv_a = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_b = nn.Conv2d(channels, outputs, 3, padding=1)

    def forward(self, rectified: Tensor, features: Tensor) -> Tensor:
        """The residual `[B, outputs, H, W]`, from `rectified` of the recurrence and the stem's `features`."""
        # A matrix product: half the time of a convolution in training.
        weight, nhwc = self.up.weight.flatten(1), rectified.permute(0, 2, 3, 1)
        parts = F.linear(nhwc, weight, self.up.bias).permute(0, 3, 1, 2)
        full = add_depth_to_space(features, parts, self.stride)
        residual: Tensor = self.conv_b(F.relu(self.conv_a(F.relu(full))))
        return residual


class NLRN(nn.Module):
    """The network; see the module's docstring for its equations and `NLRNConfig` for its options.

    Source: Liu et al., Non-Local Recurrent Network for Image Restoration, NeurIPS 2018, and its official code.

    Example:
        >>> import torch
        >>> from nlrn import NLRN, NLRNConfig
        >>> model = NLRN(NLRNConfig(width=16, embedding=8, num_steps=3, window_size=7)).eval()
        >>> model(torch.rand(1, 1, 20, 30)).shape
        torch.Size([1, 1, 20, 30])
    """

    def __init__(self, config: NLRNConfig) -> None:
        super().__init__()
        self.config = config
        width, inputs = config.width, config.channels + config.noise_channel
        if config.stem is None:
            self.input_norm = batch_norm(inputs)
            self.input_conv = nn.Conv2d(inputs, width, 3, padding=1)
        else:
            self.stem = Stem(inputs, config.stem, width, config.stride)
        self.attention_norms = nn.ModuleList(batch_norm(width) for _ in range(config.num_steps))
        self.attention = NonLocalBlock(width, config.embedding, config.window_size, config.affinity)
        self.conv_a_norms = nn.ModuleList(batch_norm(width) for _ in range(config.num_steps))
        self.conv_a = nn.Conv2d(width, width, 3, padding=1)
        self.conv_b_norms = nn.ModuleList(batch_norm(width) for _ in range(config.num_steps))
        self.conv_b = nn.Conv2d(width, width, 3, padding=1)
        self.output_norms = nn.ModuleDict({str(head): batch_norm(width) for head in config.heads})
        if config.stem is None:
            self.output_conv = nn.Conv2d(width, config.channels, 3, padding=1)
        else:
            self.tail = Tail(width, config.stem, config.channels, config.stride)
        self.pointwise = Pointwise()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises the convolutions by `config.initialization`."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                glorot(module)
        if self.config.initialization == "trainable":
            for conv in (self.attention.value, self.conv_b, self.last_conv):
                nn.init.zeros_(conv.weight)
            with torch.no_grad():
                for projection in self.attention.projections:
                    projection.weight.mul_(0.35)

    @property
    def info(self) -> ModelInfo:
        """The network's declaration."""
        config = self.config
        cut: Literal["bands", "tiles", "whole"] = "bands"
        if config.affinity != DEFAULT:
            cut = "whole" if config.window_size is None else "tiles"
        return ModelInfo(
            name="nlrn",
            task=config.task,
            channels=config.channels,
            sigma_range=config.sigma_range,
            sigma_map=config.noise_channel,
            steps=config.heads,
            cut=cut,
            memory=None if cut == "bands" else self._memory,
            halo=config.halo,
            grid=config.stride,
            patch_protocol=config.patch_protocol,
            precisions=(torch.float32, torch.float64, torch.bfloat16, torch.float16),
        )

    def _memory(self, shape: Shape) -> int:
        """An upper estimate of the bytes of a call in float32 without bands, the result included."""
        batch, channels, height, width = shape
        config = self.config
        # Queries and keys of all steps, features in flight, and those at full resolution.
        depth = (9 if config.affinity == "patch_distance" else 1) * config.embedding + 1
        features = config.num_steps * 2 * depth + 8 * config.width
        full = 4 * (config.stem or 0) + 4 * channels
        positions = config.positions(height) * config.positions(width)
        return 4 * batch * (positions * features + height * width * full) + 2 * self.attention.max_memory

    @property
    def first_conv(self) -> nn.Conv2d:
        """The convolution that reads the image."""
        return self.input_conv if self.config.stem is None else self.stem.conv_a

    @property
    def start_conv(self) -> nn.Conv2d:
        """The convolution that makes s^0."""
        return self.input_conv if self.config.stem is None else self.stem.down

    @property
    def last_conv(self) -> nn.Conv2d:
        """The convolution that makes the residual."""
        return self.output_conv if self.config.stem is None else self.tail.conv_b

    def forward(
        self, image: Tensor, sigma: float | Tensor | None = None, *, steps: int | None = None
    ) -> Tensor:
        """The restored image.

        Args:
            image: `[B, channels, H, W]`, float in [0, 1].
            sigma: noise standard deviation in the same units, a number, `[B]`, or that of each pixel, `[B, 1, H, W]`
                or `[1, 1, H, W]`; needed by a model with a noise channel, ignored by any other.
            steps: stop after this many steps; one of `config.heads`, by default the last.

        Returns:
            A tensor of the shape of `image`, not clipped.

        Raises:
            ValueError: wrong shape or channels, `steps` that are no head, sigma missing, negative or not finite.
        """
        taken = self.info.check_steps(steps)
        assert taken is not None
        return self._after((taken,), image, sigma)[0]

    def all_heads(self, image: Tensor, sigma: float | Tensor | None = None) -> list[Tensor]:
        """The restored images of every head, in the order of `config.heads`: what training compares."""
        return self._after(self.config.heads, image, sigma)

    def _after(self, heads: tuple[int, ...], image: Tensor, sigma: float | Tensor | None) -> list[Tensor]:
        """The restored images after each of `heads` steps."""
        level, features = self.noise_level(image, sigma), None
        padded = self.pad(image)
        encoded = self.encode(padded, level)
        if self.config.stem is None:
            start = self.input_conv(encoded)
        else:
            features, start = self.stem(encoded)
        change, state, restored = None, None, []
        for t in range(heads[-1]):
            change, state = self.step(t, start, change, state, last=t + 1 == heads[-1])
            if t + 1 in heads:
                residual = self.head(t + 1, start, change, features)
                restored.append(image + residual[:, :, : image.shape[2], : image.shape[3]])
        return restored

    def step(
        self, t: int, start: Tensor, change: Tensor | None, state: AttentionState | None, *, last: bool
    ) -> tuple[Tensor, AttentionState | None]:
        """Step `t` (from 0): the next `change` s^t - s^0 (`[B, width, H, W]`; `None` is zero), and the next state."""
        keep_state = self.config.correlation_propagation and not last
        features = self._rectified(self.attention_norms[t], start, change)
        average, state = self.attention.average(features, state, keep_state=keep_state)
        features = self.conv_a(self.pointwise.add_norm(self.conv_a_norms[t], features, average))
        change = self.conv_b(self.pointwise.norm_relu(self.conv_b_norms[t], features))
        return change, state

    def _rectified(self, norm: nn.Module, start: Tensor, change: Tensor | None) -> Tensor:
        """`ReLU(norm(s^t))`, the input of steps and heads."""
        if change is None:
            return self.pointwise.norm_relu(norm, start)
        return self.pointwise.add_norm_relu(norm, start, change)

    def head(self, steps: int, start: Tensor, change: Tensor | None, features: Tensor | None) -> Tensor:
        """The residual after some steps; `features` are the stem's, `None` without one."""
        rectified = self._rectified(self.output_norms[str(steps)], start, change)
        residual: Tensor = self.output_conv(rectified) if features is None else self.tail(rectified, features)
        return residual

    def noise_level(self, image: Tensor, sigma: float | Tensor | None) -> Tensor | None:
        """The noise channel of an image; `None` for a model that has none.

        Returns:
            `[B, 1, 1, 1]`, or, of a sigma for each pixel, `[B, 1, H, W]` of the size of `pad(image)`.

        Raises:
            ValueError: an image or a sigma as in `forward`.
        """
        if image.ndim != 4 or image.shape[1] != self.config.channels or 0 in image.shape:
            raise ValueError(
                f"image must be [B, {self.config.channels}, H, W] and not empty, got shape {tuple(image.shape)}"
            )
        if not self.config.noise_channel:
            return None
        level = 4 * self.check_sigma(sigma, image)
        return level if level.shape[2:] == (1, 1) else self.pad(level)

    def pad(self, image: Tensor) -> Tensor:
        """The image with its last row and column repeated until whole positions of the recurrence cover it."""
        if self.config.stride == 1:
            return image
        stride = self.config.stride
        # Not with negative numbers, which `torch.export` cannot follow.
        below, right = ((length + stride - 1) // stride * stride - length for length in image.shape[2:])
        return F.pad(image, (0, right, 0, below), mode="replicate")

    def encode(self, image: Tensor, level: Tensor | None) -> Tensor:
        """The input of the first convolution: the image and, if the model has one, its noise channel, normalised."""
        if self.config.stem is not None:
            image = image - 0.5
        if level is not None:
            image = torch.cat([image, level.expand(-1, -1, *image.shape[2:])], 1)
        encoded: Tensor = image if self.config.stem is not None else self.input_norm(image)
        return encoded

    def check_sigma(self, sigma: float | Tensor | None, image: Tensor) -> Tensor:
        """Sigma as `[B, 1, 1, 1]`, or of each pixel `[B, 1, H, W]`, brought into the model's range (with a warning)."""
        assert self.config.sigma_range is not None
        low, high = self.config.sigma_range
        if sigma is None:
            raise ValueError(f"this model needs sigma (between {low:.4f} and {high:.4f}, in units of [0, 1])")
        level = torch.as_tensor(sigma, dtype=image.dtype, device=image.device)
        batch, (height, width) = image.shape[0], image.shape[2:]
        of_pixels = level.ndim == 4 and level.shape[2:] in ((1, 1), (height, width))
        if of_pixels and level.shape[:2] in ((batch, 1), (1, 1)):
            level = level.expand(batch, -1, -1, -1)
        elif level.shape in ((), (batch,)):
            level = level.reshape(-1, 1, 1, 1).expand(batch, 1, 1, 1)
        else:
            raise ValueError(
                f"sigma must be a number, one per image ({batch},) or of each pixel ({batch}, 1, {height}, {width}), "
                f"got shape {tuple(level.shape)}"
            )
        given: tuple[float, ...] = ()
        if isinstance(sigma, int | float):
            given = (sigma,)
        elif not (self.training or torch.compiler.is_compiling()):
            # A look at the values waits for the device and has no place in a graph; in training the loss shows it.
            given = (level.min().item(), level.max().item())
        for value in dict.fromkeys(given):
            _, note = nearest_known(value, self.config.sigma_range)
            if note is not None:
                warnings.warn(note, stacklevel=2)
        return level.clamp(low, high)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with the official eps and momentum (0.99 in TensorFlow's sense)."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
