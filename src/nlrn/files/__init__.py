"""Image files: reading, writing and what a picture in one is."""
