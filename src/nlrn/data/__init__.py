"""Images in files and arrays."""
