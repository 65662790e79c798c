"""Figures and self-contained pages about adapted streams, drawn from run folders without torch."""

from tta.report.compare import comparison_table, write_comparison
from tta.report.figures import figures
from tta.report.page import write_report
from tta.report.run import read_run

__all__ = ["comparison_table", "figures", "read_run", "write_comparison", "write_report"]
