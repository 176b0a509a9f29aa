"""Restoration methods without learned weights: `model(image, sigma) -> restored`, as the learned ones."""
