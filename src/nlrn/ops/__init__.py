"""Pure tensor functions: no module, no file, no choice of device."""
