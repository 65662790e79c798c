"""Many runs from one file: adapters x models x streams x seeds, resumable, on one machine or on a cluster."""

from tta.matrix.cells import Cell, plan
from tta.matrix.engine import Engine
from tta.matrix.matrix import Matrix, read_matrix
from tta.matrix.results import Results
from tta.matrix.run import run_matrix
from tta.matrix.work import Outcome, Work, run_cell

__all__ = ("Cell", "Engine", "Matrix", "Outcome", "Results", "Work", "plan", "read_matrix", "run_cell", "run_matrix")
