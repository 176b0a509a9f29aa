"""Image restoration with the Non-Local Recurrent Network.

Names are imported when first used, so that `import nlrn` (and `nlrn --help`) does not wait for PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from .api import dejpeg as dejpeg
    from .api import denoise as denoise
    from .api import estimate_noise as estimate_noise
    from .api import restore as restore
    from .api import upscale as upscale
    from .inference.noise_level import NoiseEstimate as NoiseEstimate
    from .inference.sensor_noise import NoiseUnknown as NoiseUnknown
    from .inference.sensor_noise import SensorNoiseEstimate as SensorNoiseEstimate
    from .models.contract import ModelInfo as ModelInfo
    from .models.nlrn import NLRN as NLRN
    from .models.nlrn import NLRNConfig as NLRNConfig
    from .models.nonlocal_block import NonLocalBlock as NonLocalBlock
    from .models.zoo import load_model as load_model
    from .ops.nonlocal_attention import nonlocal_attention as nonlocal_attention
    from .restoration import Restorer as Restorer
    from .training.adapt import adapt as adapt
    from .viewer import Comparison as Comparison
    from .viewer import compare as compare


_HOMES = {
    "Comparison": "viewer",
    "ModelInfo": "models.contract",
    "NLRN": "models.nlrn",
    "NLRNConfig": "models.nlrn",
    "NonLocalBlock": "models.nonlocal_block",
    "NoiseEstimate": "inference.noise_level",
    "NoiseUnknown": "inference.sensor_noise",
    "Restorer": "restoration",
    "SensorNoiseEstimate": "inference.sensor_noise",
    "adapt": "training.adapt",
    "compare": "viewer",
    "dejpeg": "api",
    "denoise": "api",
    "estimate_noise": "api",
    "load_model": "models.zoo",
    "nonlocal_attention": "ops.nonlocal_attention",
    "restore": "api",
    "upscale": "api",
}

__all__ = [
    "NLRN",
    "Comparison",
    "ModelInfo",
    "NLRNConfig",
    "NoiseEstimate",
    "NoiseUnknown",
    "NonLocalBlock",
    "Restorer",
    "SensorNoiseEstimate",
    "adapt",
    "compare",
    "dejpeg",
    "denoise",
    "estimate_noise",
    "load_model",
    "nonlocal_attention",
    "restore",
    "upscale",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nlrn' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
