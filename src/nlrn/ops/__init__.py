"""Pure tensor functions: no module, no file, no choice of device."""

from . import threads as threads
