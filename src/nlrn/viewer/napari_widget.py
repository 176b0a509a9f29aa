"""The widget of the napari plugin: an image layer in, a denoised one out. `napari.yaml` declares it.

Only napari imports this module (extra `napari`). The work is done in a thread, so that the window stays alive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import CheckBox, ComboBox, Container, FloatSpinBox, Label, ProgressBar, PushButton
from napari.layers import Image, Layer
from napari.qt.threading import create_worker
from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, Signal

from ..inference import Progress
from ..models.zoo import CLASSICAL, MODELS
from ..restoration import Report, Restorer, restore_stack
from ..restoration.options import Settings

if TYPE_CHECKING:
    from napari.components import ViewerModel

AUTOMATIC = "automatic"
NOISES = (AUTOMATIC, "white, of this level", "of a sensor (counts)")
# Letters for the axes of a stack whose labels are no letters of tifffile.
SPARE = "TZQIRAEPLHMVWBDFGJKNOU"


def axes_of(layer: Image) -> str:
    """The axes of a layer's data by tifffile's letters: Y, X and perhaps S at the end, its labels or others before.

    An axis called C, `c` or `channel` holds channels, each of which is a stack of its own.
    """
    count = layer.ndim - 2
    axes = ""
    for label in layer.axis_labels[:count]:
        letter = "C" if label.lower() == "channel" else label.upper()
        if len(letter) != 1 or letter not in f"{SPARE}C" or letter in axes:
            letter = next(spare for spare in SPARE if spare not in axes)
        axes += letter
    return f"{axes}YX{'S' if layer.rgb else ''}"


def denoised_layer(layer: Image, restorer: Restorer, sigma: float | None, progress: Progress) -> Layer:
    """A new layer with the place, scale, colours and metadata of the old one; `metadata["nlrn"]` is the report.

    Args:
        layer: grey or RGB, of any number of dimensions, of which the last two are a plane.
        restorer: removes the noise.
        sigma: noise level in the units of the layer; `None` where nlrn chooses.
        progress: called with the fraction done.

    Raises:
        ValueError: several resolutions in one layer, and as `restore_stack`.
    """
    if layer.multiscale:
        raise ValueError("the layer has several resolutions (multiscale); give one with a single resolution")
    pixels, reports = restore_stack(restorer, np.asarray(layer.data), axes_of(layer), sigma, progress)
    report = reports.joined()
    _, state, kind = layer.as_layer_data_tuple()
    state |= {
        "name": f"{layer.name} denoised",
        "metadata": {**layer.metadata, "nlrn": told(report)},
    }
    return Layer.create(pixels, state, kind)


def told(report: Report) -> str:
    """A report in lines: model, noise level, notes and warnings."""
    level = [] if report.sigma is None else [f"noise level {255 * report.sigma:.3g} of 255"]
    head = ", ".join([report.model, *level, f"{report.seconds:.1f} s"])
    return "\n".join([head, *report.notes, *(f"warning: {caution}" for caution in report.warnings)])


@dataclass(frozen=True, eq=False)
class _Outcome:
    """A layer, or what went wrong, which the thread of the window shows."""

    layer: Any = None
    error: Exception | None = None


def _outcome(work: Callable[[], Layer]) -> _Outcome:
    try:
        return _Outcome(work())
    except Exception as error:
        return _Outcome(error=error)


class _Stopped(Exception):
    """The user has stopped the work."""


class _Moved(QObject):  # type: ignore[misc]
    """Progress from the thread of the work to that of the window."""

    to = Signal(float)


class DenoiseWidget(Container):  # type: ignore[misc]
    """A form for `nlrn denoise` on an image layer.

    Args:
        viewer: whose layers it takes, and to which it adds the result.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._worker: Any = None
        self._stopping = False
        self.layer = ComboBox(label="layer", choices=self._images, nullable=True)
        networks = [name for name, entry in MODELS.items() if entry.task in ("denoise", "photo")]
        self.model = ComboBox(label="model", choices=[AUTOMATIC, *networks, *CLASSICAL])
        self.noise = ComboBox(label="noise", choices=NOISES)
        self.sigma = FloatSpinBox(
            label="sigma",
            value=25.0,
            min=0.0,
            max=1e9,
            step=0.01,
            tooltip="Standard deviation of the noise, in the units of the layer",
        )
        self.hot_pixels = CheckBox(label="replace hot pixels")
        self.decorrelate = CheckBox(label="noise of rows, columns or neighbours")
        self.run = PushButton(text="Denoise")
        self.bar = ProgressBar(label="", min=0, max=1000, visible=False)
        self.status = Label(label="")
        super().__init__(
            widgets=[
                *(self.layer, self.model, self.noise, self.sigma, self.hot_pixels, self.decorrelate),
                *(self.run, self.bar, self.status),
            ]
        )
        self._moved = _Moved()
        self._moved.to.connect(self._show_progress)
        self.noise.changed.connect(self._follow_noise)
        self.run.changed.connect(self._start_or_stop)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self._reset)
        self._reset()
        self._follow_noise()

    @property
    def busy(self) -> bool:
        """True while a layer is being restored."""
        return self._worker is not None

    def _images(self, _: Any = None) -> list[Image]:
        return [layer for layer in self._viewer.layers if isinstance(layer, Image)]

    def _reset(self, _: Any = None) -> None:
        self.layer.reset_choices()
        if self.layer.value is None and (images := self._images()):
            self.layer.value = images[-1]

    def _follow_noise(self, _: Any = None) -> None:
        self.sigma.enabled = self.noise.value == NOISES[1]

    def _restorer(self) -> tuple[Restorer, float | None]:
        """The restorer and the noise level of the form."""
        settings: Settings = {"hot_pixels": self.hot_pixels.value, "decorrelate": self.decorrelate.value}
        if self.noise.value == NOISES[2]:
            settings["noise"] = "poisson-gaussian"
        model = None if self.model.value == AUTOMATIC else self.model.value
        return Restorer(model, **settings), self.sigma.value if self.sigma.enabled else None

    def _start_or_stop(self, _: Any = None) -> None:
        if self.busy:
            self._stopping = True
            self.run.enabled = False
            return
        layer = self.layer.value
        if layer is None:
            self.status.value = "no image layer is chosen"
            return
        try:
            restorer, sigma = self._restorer()
        except ValueError as error:  # options that contradict each other
            self._fail(error)
            return
        self._worker = create_worker(
            _outcome, lambda: denoised_layer(layer, restorer, sigma, self._progress), _start_thread=False
        )
        self._worker.returned.connect(self._finish)
        self._worker.finished.connect(self._rest)
        self.run.text, self.bar.value, self.bar.visible, self.status.value = "Stop", 0, True, ""
        self._worker.start()

    def _progress(self, fraction: float) -> None:
        """Called in the thread of the work."""
        if self._stopping:
            raise _Stopped
        self._moved.to.emit(fraction)

    def _show_progress(self, fraction: float) -> None:
        self.bar.value = round(1000 * fraction)

    def _finish(self, outcome: _Outcome) -> None:
        if outcome.error is not None:
            self._fail(outcome.error)
            return
        self._viewer.add_layer(outcome.layer)
        self.status.value = outcome.layer.metadata["nlrn"]

    def _fail(self, error: Exception) -> None:
        if isinstance(error, _Stopped):
            self.status.value = "stopped"
            return
        self.status.value = f"{type(error).__name__}: {error}"
        show_error(self.status.value)

    def _rest(self) -> None:
        self._worker, self._stopping = None, False
        self.run.text, self.run.enabled, self.bar.visible = "Denoise", True, False
