"""The version, for the package, its build and the records of its benchmarks."""

__version__ = "0.1.0"
