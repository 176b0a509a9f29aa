"""Restoration methods; each is `model(image, sigma=None) -> restored`."""
