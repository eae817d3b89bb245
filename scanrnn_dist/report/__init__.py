"""The report: one page about a job, finished or not, that a browser opens without a network, or that follows the job.

`numbers.py` reads the job and counts; `page.py` makes the page of it, which `live.py` serves to this machine.
"""

from scanrnn_dist.report.live import LiveServer
from scanrnn_dist.report.numbers import Check, ReportNumbers, read_numbers
from scanrnn_dist.report.page import Report, check_can_draw, write_report
