"""The restoration of images in units of [0, 1]: the model, the noise level, and the report on both."""

from __future__ import annotations

import dataclasses
import time
from functools import partial

import torch
from torch import Tensor

from ..inference import Progress, part_of
from ..inference.noise_level import NoiseEstimate, noise_level
from ..inference.noise_spectrum import clear_lines, estimate_spectrum
from ..models.contract import Model, info_of, nearest_known
from ..models.zoo import CLASSICAL
from .choice import AS_IT_WAS, is_gray, is_photo, reason
from .decorrelate import denoise_correlated
from .enlargement import Enlargement
from .guard import guard
from .loaded import LoadedModels
from .options import Options
from .removed import removed_cautions
from .report import Report, joined
from .running import Runner
from .strength import check_strength, partly
from .unit_image import UnitImage
from .unlike_channels import denoise_unlike

# The level for which a model is chosen that removes noise by its spectrum.
STRONGEST = 1.0


class UnitRestorer:
    """Restores images in units of [0, 1].

    Args:
        options: of the restoration.
        models: from which one is taken for each image.
        run: runs it.
        white: whether the noise is known to be white, as that of transformed counts is.

    Raises:
        ValueError: a strength beyond 0..1 or for a task that has none, or a purpose that `Options.handling` refuses.
    """

    def __init__(self, options: Options, models: LoadedModels, run: Runner, *, white: bool) -> None:
        self._options, self._models, self._run, self._white = options, models, run, white
        self._strength, self._handling = check_strength(options.strength, options.task), options.handling

    def __call__(
        self, image: UnitImage, progress: Progress, enlargement: Enlargement | None = None
    ) -> tuple[Tensor, Report]:
        """The pixels restored, of the size of `enlargement` if there is one.

        Raises:
            ValueError: channels that the model does not know, or an image too small for an estimate.
            ModelError: a model that cannot be loaded or that is for another task.
        """
        started = time.perf_counter()
        of_images = image.shares is not None and len(image.shares) > 1
        if len(image.pixels) > 1 and (of_images or self._estimates(image)):
            parts = image.each()
            pairs = [
                self(part, part_of(progress, i, len(parts)), enlargement) for i, part in enumerate(parts)
            ]
            return torch.cat([result for result, _ in pairs]), joined([report for _, report in pairs])
        if image.shares is not None and image.shares.shape[1] > 1:
            result, report = self._unlike(image, progress, enlargement)
            return result, dataclasses.replace(report, seconds=time.perf_counter() - started)
        gray = self._models.are_ours and is_gray(image.pixels) and not image.is_constant
        image, notes = self._with_spectrum(image, gray)
        result, report = (self._gray if gray else self._chosen)(image, progress, enlargement)
        seconds = time.perf_counter() - started
        return result, dataclasses.replace(report, notes=(*notes, *report.notes), seconds=seconds)

    def _with_spectrum(self, image: UnitImage, gray: bool) -> tuple[UnitImage, tuple[str, ...]]:
        """An image with the spectrum of its noise, if that is asked for and not white, and a note on it."""
        if not self._options.decorrelate or image.is_constant:
            return image, ()
        spectrum = estimate_spectrum(image.pixels[:, :1] if gray else image.pixels, image.hidden)
        if isinstance(image.sigma, float | int):
            spectrum = spectrum.scaled_to(image.sigma)
        if spectrum.is_white:
            return image, ("the noise is white: decorrelate=True changes nothing",)
        return dataclasses.replace(image, spectrum=spectrum), (spectrum.note,)

    def _estimates(self, image: UnitImage) -> bool:
        """True where the result depends on an estimate of the noise."""
        if self._options.decorrelate:
            return True
        if image.sigma not in (None, "auto"):
            return False
        if self._chooses and image.sigma is None:
            return True
        model, _ = self._models.get(image.channels, image.sigma, image.channels == 3 and not self._white)
        return info_of(model).sigma_range is not None

    @property
    def _chooses(self) -> bool:
        """True where the model follows from the noise."""
        return self._options.model is None and self._options.task == "denoise"

    def _gray(
        self, image: UnitImage, progress: Progress, enlargement: Enlargement | None
    ) -> tuple[Tensor, Report]:
        """RGB whose channels are equal, restored so that they stay it."""
        if self._options.model is None or info_of(self._models.get(1, None, False)[0]).channels != 3:
            one = dataclasses.replace(image, pixels=image.pixels[:, :1])
            result, report = self._chosen(one, progress, enlargement)
        else:
            model, name = self._models.get(3, None, not self._white)
            result, report = self._through(model, name, image, progress, enlargement)
            result = result.mean(1, keepdim=True)
        note = "the three channels are equal: restored as grey"
        return result.expand(-1, 3, -1, -1), dataclasses.replace(report, notes=(note, *report.notes))

    def _chosen(
        self, image: UnitImage, progress: Progress, enlargement: Enlargement | None
    ) -> tuple[Tensor, Report]:
        """The image restored by the model for its channels and its noise."""
        channels, undecided = image.channels, self._chooses and image.sigma is None
        handling = self._handling
        by_name = False if self._options.decorrelate else handling.photo
        if self._chooses and image.sigma in (None, "auto") and not self._constant(image):
            image = dataclasses.replace(image, estimate=image.noise(drawings=handling.drawings))
            found = image.estimate
        else:
            found = None
        sigma = image.sigma if image.shares is None else self._level_of_map(image)
        photo = undecided and (is_photo(channels, found) if by_name is None else by_name)
        level = 0.0 if found is None else found.sigma
        if image.spectrum is None:
            model, name = self._models.get(channels, sigma, photo and not self._white, level)
        else:  # the first passes are at high levels
            model, name = self._models.get(channels, "auto", False, STRONGEST)
        if undecided and found is not None and found.drawing and image.spectrum is None:
            told = (AS_IT_WAS,) if handling.note is None else (handling.note, AS_IT_WAS)
            return image.pixels, Report(name, 0.0, True, told)
        if photo:
            # Grey photographs go through the model as RGB whose channels are equal.
            image = dataclasses.replace(image, pixels=image.pixels.expand(-1, 3, -1, -1))
        result, report = self._through(model, name, image, progress, enlargement)
        if image.channels != channels:
            result = result.mean(1, keepdim=True)
        notes = self._reasons(image, channels, found, photo if undecided else None)
        return result, dataclasses.replace(report, notes=(*notes, *report.notes))

    def _level_of_map(self, image: UnitImage) -> float:
        """The noise level for which the model of a map is chosen: the root mean square, in which errors count.

        It is the strongest where the model for that does not know the strongest.
        """
        assert isinstance(image.sigma, float)
        assert image.shares is not None
        mean = image.sigma * float(image.shares.square().mean()) ** 0.5
        known = info_of(self._models.get(image.channels, mean, False)[0]).sigma_range
        return image.sigma if known is not None and image.sigma > known[1] else mean

    def _unlike(
        self, image: UnitImage, progress: Progress, enlargement: Enlargement | None
    ) -> tuple[Tensor, Report]:
        """An image whose channels have noise levels of their own."""
        assert isinstance(image.sigma, float)
        assert image.shares is not None
        levels = (image.sigma * image.shares.double()).flatten().tolist()

        def choose(channels: int, level: float) -> tuple[Model, str]:
            return self._models.get(channels, level, False)

        about = info_of(choose(image.channels, image.sigma)[0])
        if about.sigma_range is None or self._constant(image):
            return self._chosen(dataclasses.replace(image, shares=None), progress, enlargement)
        restored, name, cautions = denoise_unlike(image.pixels, levels, choose, self._run, progress)
        notes: tuple[str, ...] = (
            "the channels have noise levels of their own: each was restored by itself first",
        )
        if self._models.are_ours and name not in CLASSICAL:
            guarded = guard(image.pixels, restored, image.sigma, self._handling)
            restored, notes = guarded.image, (*notes, *guarded.notes)
        if not self._white:
            restored = partly(image.pixels, restored, self._strength)
        return restored, Report(name, sum(levels) / len(levels), False, notes, tuple(cautions))

    def _reasons(
        self, image: UnitImage, channels: int, found: NoiseEstimate | None, photo: bool | None
    ) -> tuple[str, ...]:
        """Notes on the choice of the model, and on noise that it leaves.

        Args:
            image: restored by the model.
            channels: those that it had before.
            found: its noise, where that was measured.
            photo: whether the model is one for photographs; `None` where it does not follow from the noise.
        """
        notes = [] if self._handling.note is None else [self._handling.note]
        if found is None or image.spectrum is not None:
            return tuple(notes)
        if lines := clear_lines(image.pixels, image.hidden, found.sigma):
            notes.append(
                f"{' and '.join(lines)} of the picture share noise: denoise with decorrelate=True removes it"
            )
        elif photo is not None and not (notes or self._options.decorrelate):
            notes += [why] if (why := reason(channels, photo)) else []
        return tuple(notes)

    def _constant(self, image: UnitImage) -> bool:
        """True for an image that stays as it is, which a model of the user's may see differently."""
        return self._models.are_ours and image.is_constant

    def _through(
        self,
        model: Model,
        name: str,
        image: UnitImage,
        progress: Progress,
        enlargement: Enlargement | None,
    ) -> tuple[Tensor, Report]:
        """The image restored by a model, with the noise level that this needs."""
        about, pixels, notes = info_of(model), image.pixels, list[str]()
        if image.shares is not None and about.sigma_range is not None and not about.sigma_map:
            raise ValueError(
                f"{name} takes one noise level for an image, and sigma= has one for each pixel; give a number, or a "
                "network with a noise level, as those are that nlrn chooses"
            )
        constant, sigma = self._constant(image), "auto" if image.sigma is None else image.sigma
        begun = None if enlargement is None else enlargement.begin(pixels)
        if begun is not None:
            pixels, notes = begun.luma, [*begun.target.notes]
        channels = pixels.shape[1]
        model_channels = about.channels or channels
        if model_channels == 3 and channels == 1:
            raise ValueError(f"model {name} restores RGB images, this one is grey; choose a grey model")
        if model_channels == 1 and channels == 3:
            notes.append(f"{name} is a grey model: each colour channel is restored by itself")
        if self._models.is_approximate(name):
            notes.append(f"approximate: {name} was not trained with a window of {self._options.window_size}")

        level = used = None
        levels: float | Tensor | None = None
        cautions: list[str] = []
        if about.sigma_range is not None and constant:
            level = 0.0 if sigma == "auto" else sigma
        elif about.sigma_range is not None:
            known = sigma if image.spectrum is None else image.spectrum.variance**0.5
            level, used, cautions = noise_level(
                pixels, known, about.sigma_range, image.hidden, image.estimate
            )
            levels = used
            if image.shares is not None:
                levels = (level * image.shares).clamp(*about.sigma_range)
                _, low = nearest_known(level * float(image.shares.min()), about.sigma_range)
                cautions += [low] if low else []
        elif sigma != "auto":
            notes.append(f"{name} takes no sigma: it is ignored")
        if begun is not None:
            pixels = begun.finish(
                lambda luma, part: luma if constant else self._run(model, luma, levels, part), progress
            )
        elif not constant:
            restored = self._denoised(model, image, pixels, levels, progress)
            if self._models.are_ours and name not in CLASSICAL:
                white = image.spectrum is None and image.shares is None and not self._white
                if self._options.task == "denoise" and used is not None and white:
                    cautions += _check(image, restored, used)
                noise = levels if isinstance(levels, Tensor) else self._level_in(image, level)
                guarded = guard(pixels, restored, noise, self._handling)
                restored, notes = guarded.image, [*notes, *guarded.notes]
            # Of a sensor's noise the share is taken in the units of the data, and not here.
            pixels = restored if self._white else partly(pixels, restored, self._strength)
        if level is not None and image.shares is not None:
            level *= float(image.shares.mean())
        return pixels, Report(
            name, level, level is not None and sigma == "auto", tuple(notes), tuple(cautions)
        )

    def _denoised(
        self, model: Model, image: UnitImage, pixels: Tensor, sigma: float | Tensor | None, progress: Progress
    ) -> Tensor:
        """The pixels through a model: once, or as the spectrum of the noise asks for."""
        known = info_of(model).sigma_range
        if image.spectrum is None or known is None:
            return self._run(model, pixels, sigma, progress)
        return denoise_correlated(pixels, image.spectrum, partial(self._run, model), known, progress)

    def _level_in(self, image: UnitImage, level: float | None) -> float:
        """The noise level of an image, also where the model takes none; 0 for other tasks than denoising."""
        if level is None and self._options.task == "denoise":
            found = image.noise(drawings=self._handling.drawings)
            return 0.0 if found is None else found.sigma
        return level or 0.0


def _check(image: UnitImage, restored: Tensor, noise: float) -> list[str]:
    """Cautions about what was removed from each image of a batch, once."""
    pairs = zip(image.each(), torch.split(restored, 1), strict=True)
    found = [removed_cautions(one.pixels, result, noise, one.hidden) for one, result in pairs]
    return list(dict.fromkeys(sentence for cautions in found for sentence in cautions))
