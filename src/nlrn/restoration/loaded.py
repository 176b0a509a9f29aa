"""The models of a restorer: chosen by task, channels and noise, and loaded once."""

from __future__ import annotations

from typing import cast

import torch

from ..models.contract import Model, info_of
from ..models.zoo import check_task, default_model, load_model
from .options import Options
from .value_range import Sigma


class LoadedModels:
    """The models that a restorer has needed so far.

    Args:
        options: those of the restorer.
        device: the device of models given by name.
    """

    def __init__(self, options: Options, device: torch.device) -> None:
        self._options, self._device = options, device
        self._by_name: dict[str, Model] = {}
        self._approximate: set[str] = set()

    @property
    def are_ours(self) -> bool:
        """True for models that come with nlrn or were written by it, not for a model object."""
        return self._options.model is None or self._options.model_name is not None

    def name_for(self, channels: int, sigma: Sigma | None, photo: bool, level: float = 0.0) -> str:
        """The name of the model for images of so many channels and white noise; for `photo` where sigma is `None`.

        `level` is the estimate of the noise where sigma is none.
        """
        options = self._options
        if options.model_name is not None:
            return options.model_name
        if options.task == "upscale":
            return default_model("upscale", 1)
        if options.task == "denoise" and channels in (1, 3) and sigma is None and photo:
            # The model for grey photographs is the one that learned grain.
            return default_model("photo", 1 if options.handling.grain else channels, level)
        return default_model(options.task, channels, level if sigma in (None, "auto") else cast(float, sigma))

    def get(self, channels: int, sigma: Sigma | None, photo: bool, level: float = 0.0) -> tuple[Model, str]:
        """The model and its name, for arguments of `name_for`.

        Raises:
            ModelError: a model that cannot be loaded or is for another task.
            ValueError: steps after which it cannot stop, a sigma beside a purpose that has none, or a model without a
                noise level where one is needed.
        """
        model, name = self._named(channels, sigma, photo, level)
        if self._options.decorrelate and info_of(model).sigma_range is None:
            raise ValueError(
                f"decorrelate is for a model that takes a noise level, and {name} takes none; name another"
            )
        return model, name

    def _named(self, channels: int, sigma: Sigma | None, photo: bool, level: float) -> tuple[Model, str]:
        options = self._options
        if sigma is not None and options.handling.photo:
            raise ValueError(
                f"purpose='{options.purpose}' takes a model that has no noise level, and sigma= is for white noise; "
                "give one of them"
            )
        if not self.are_ours:
            return cast(Model, options.model), type(options.model).__name__
        name = self.name_for(channels, sigma, photo, level)
        if name not in self._by_name:
            loaded = load_model(name, device=self._device)
            loaded.info.check_steps(options.steps)
            check_task(name, loaded, options.task)
            if options.window_size != "default":
                halo = loaded.info.halo
                loaded = load_model(name, device=self._device, window_size=options.window_size)
                if loaded.info.halo != halo:
                    self._approximate.add(name)
            self._by_name[name] = loaded
        return self._by_name[name], name

    def is_approximate(self, name: str) -> bool:
        """True for a model that is used with another window than it was trained with."""
        return name in self._approximate
