"""`python -m nlrn`."""

from .cli import main

main()
