"""Restoration of what people have: files, arrays and tensors."""

from .levels import AnySigma as AnySigma
from .measure import measure_lines as measure_lines
from .measure import measure_noise as measure_noise
from .measure import measure_noise_of_pages as measure_noise_of_pages
from .measure import measure_sensor_noise as measure_sensor_noise
from .options import DataRange as DataRange
from .options import Options as Options
from .options import Settings as Settings
from .options import Task as Task
from .report import PageReports as PageReports
from .report import Report as Report
from .restorer import Restorer as Restorer
from .stack import RestoredPages as RestoredPages
from .stack import restore_stack as restore_stack
from .value_range import Sigma as Sigma
