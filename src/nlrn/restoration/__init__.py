"""Restoration of what people have: files, arrays and tensors."""

from .restorer import Report as Report
from .restorer import Restorer as Restorer
from .restorer import Task as Task
from .value_range import Sigma as Sigma
from .value_range import unit_sigma as unit_sigma
