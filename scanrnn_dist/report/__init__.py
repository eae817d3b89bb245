"""The report: one page about a job, finished or not, that a browser opens without a network.

`numbers.py` reads the job and counts; `page.py` makes the page of it.
"""

from scanrnn_dist.report.numbers import read_numbers
from scanrnn_dist.report.page import Report, check_can_draw, write_report
