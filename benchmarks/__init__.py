"""Run as modules from the root of the repository: `python -m benchmarks.operator`, `python -m benchmarks.network`."""
