"""Whole images through a method: exact, within a memory budget, any size. Tensor in, tensor out."""

from .memory import available_memory as available_memory
from .memory import default_budget as default_budget
from .within_memory import Progress as Progress
from .within_memory import no_progress as no_progress
from .within_memory import part_of as part_of
from .within_memory import restore as restore
