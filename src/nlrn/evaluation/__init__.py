"""Measuring methods, through the same inference that users run."""
