"""Many files through one restorer."""
