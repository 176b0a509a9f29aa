"""Degradations of images, for training, measuring and trying things. The random generator is always explicit."""

from .noise import gaussian_noise as gaussian_noise
