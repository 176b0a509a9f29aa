"""Before and after under one slider: in a file, in a notebook, and on the page of the server."""

from .comparison import Comparison as Comparison
from .comparison import compare as compare
