"""The widget of the napari plugin, without a window; a fast method takes the place of the network."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import time
from pathlib import Path

import numpy as np
import pytest

import nlrn

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
ROOT = Path(__file__).parents[2]
needs_napari = pytest.mark.skipif(
    importlib.util.find_spec("napari") is None, reason="needs napari and a Qt (pip install napari pyqt6)"
)
# napari and Qt warn of what is not ours.
pytestmark = pytest.mark.filterwarnings("ignore")


def noisy(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 10, shape).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def application():
    pytest.importorskip("napari")
    from qtpy.QtWidgets import QApplication

    return QApplication.instance() or QApplication([])


@pytest.fixture
def viewer(application):
    from napari.components import ViewerModel

    return ViewerModel()


@pytest.fixture
def widget(viewer):
    from nlrn.viewer.napari_widget import DenoiseWidget

    found = DenoiseWidget(viewer)
    found.model.value = "gaussian"
    return found


@pytest.fixture
def finish(application):
    """Lets the window live until a widget is done."""

    def wait(widget, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while widget.busy:
            assert time.monotonic() < end, "the widget does not end"
            application.processEvents()
            time.sleep(0.005)

    return wait


def test_the_manifest_names_the_widget():
    """Without napari: the file is where the entry point says, and names something that the code has."""
    import tomllib

    import yaml

    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][
        "napari.manifest"
    ]
    module, file = points["nlrn"].split(":")
    manifest = yaml.safe_load((ROOT / "src" / module.replace(".", "/") / file).read_text())
    (command,) = manifest["contributions"]["commands"]
    assert [one["command"] for one in manifest["contributions"]["widgets"]] == [command["id"]]
    target, name = command["python_name"].split(":")
    assert f"class {name}(" in (ROOT / "src" / f"{target.replace('.', '/')}.py").read_text()


@needs_napari
def test_napari_takes_the_manifest():
    from npe2 import PluginManifest
    from npe2.manifest.utils import import_python_name

    manifest = PluginManifest.from_file(ROOT / "src" / "nlrn" / "viewer" / "napari.yaml")
    (widget,) = manifest.contributions.widgets
    assert widget.display_name == "Denoise"
    (command,) = manifest.contributions.commands
    assert import_python_name(command.python_name).__name__ == "DenoiseWidget"


@needs_napari
def test_a_layer_in_and_a_layer_out(viewer, widget, finish):
    """Place, scale, colours and metadata are those of the first; the pixels are those of `nlrn.denoise`."""
    layer = viewer.add_image(
        noisy(40, 50),
        name="cells",
        scale=(0.5, 0.25),
        translate=(3, 4),
        units=("um", "um"),
        colormap="green",
        contrast_limits=(10, 200),
        metadata={"objective": "60x"},
    )
    widget.noise.value = "white, of this level"
    widget.sigma.value = 10
    widget.run.native.click()
    assert widget.busy
    finish(widget)
    clean = viewer.layers[-1]
    assert clean.name == "cells denoised"
    assert np.array_equal(clean.data, nlrn.denoise(layer.data, 10, model="gaussian"))
    for name in ("scale", "translate", "contrast_limits"):
        assert np.array_equal(getattr(clean, name), getattr(layer, name)), name
    assert clean.units == layer.units
    assert clean.colormap.name == "green"
    assert clean.metadata["objective"] == "60x"
    assert clean.metadata["nlrn"].startswith("gaussian, noise level 10 of 255")
    assert widget.status.value == clean.metadata["nlrn"]
    assert widget.run.text == "Denoise"
    assert layer.metadata == {"objective": "60x"}


@needs_napari
@pytest.mark.parametrize(
    ("shape", "labels", "rgb", "axes"),
    [
        ((3, 20, 30), None, False, "TYX"),
        ((2, 3, 20, 30), ("z", "c", "y", "x"), False, "ZCYX"),
        ((2, 3, 20, 30), ("x", "channel", "y", "x"), False, "TCYX"),
        ((3, 20, 30, 3), None, True, "TYXS"),
        ((20, 30), None, False, "YX"),
    ],
)
def test_axes_of_stacks(viewer, widget, finish, shape, labels, rgb, axes):
    from nlrn.viewer.napari_widget import axes_of

    layer = viewer.add_image(noisy(*shape), rgb=rgb, **({} if labels is None else {"axis_labels": labels}))
    assert axes_of(layer) == axes
    widget.run.native.click()
    finish(widget)
    clean = viewer.layers[-1]
    assert np.array_equal(clean.data, nlrn.denoise(layer.data, axes=axes, model="gaussian"))
    assert clean.axis_labels == layer.axis_labels
    assert clean.rgb == rgb


@needs_napari
def test_counts_of_a_sensor(viewer, widget, finish):
    light = np.linspace(10, 200, 96) * np.ones((96, 1))
    viewer.add_image(np.random.default_rng(0).poisson(light).astype(np.float32))
    widget.noise.value = "of a sensor (counts)"
    assert not widget.sigma.enabled
    widget.run.native.click()
    finish(widget)
    assert "estimated variance of the noise" in widget.status.value


@needs_napari
def test_errors_are_shown_and_nothing_is_added(viewer, widget, finish, monkeypatch):
    shown = []
    monkeypatch.setattr("nlrn.viewer.napari_widget.show_error", shown.append)
    widget.run.native.click()
    assert widget.status.value == "no image layer is chosen"
    viewer.add_image(np.full((20, 20), np.nan))
    widget.run.native.click()
    finish(widget)
    assert widget.status.value == "ValueError: the image has NaN or infinite values"
    widget.noise.value, widget.decorrelate.value = "of a sensor (counts)", True
    widget.run.native.click()
    assert widget.status.value.startswith("ValueError: decorrelate is for noise of one level")
    assert len(shown) == 2
    assert len(viewer.layers) == 1


@needs_napari
def test_several_resolutions_are_refused(viewer, widget, finish, monkeypatch):
    monkeypatch.setattr("nlrn.viewer.napari_widget.show_error", lambda text: None)
    viewer.add_image([noisy(64, 64), noisy(32, 32)], multiscale=True)
    widget.run.native.click()
    finish(widget)
    assert "several resolutions" in widget.status.value


@needs_napari
def test_stop(viewer, widget, finish):
    """The window is alive during the work, and the second click ends it between two planes."""
    viewer.add_image(noisy(400, 64, 64))
    widget.model.value = "tv"
    widget.run.native.click()
    assert widget.run.text == "Stop"
    widget.run.native.click()
    finish(widget)
    assert widget.status.value == "stopped"
    assert len(viewer.layers) == 1
    assert widget.run.enabled


@needs_napari
def test_choices_follow_the_layers(viewer, widget):
    layer = viewer.add_image(noisy(20, 20))
    viewer.add_points(np.zeros((1, 2)))
    assert widget.layer.choices == (None, layer) or widget.layer.choices == (layer, None)
    assert widget.layer.value is layer
    viewer.layers.remove(layer)
    assert widget.layer.value is None
