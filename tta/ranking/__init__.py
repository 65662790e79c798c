"""Systems ranked over models, streams and seeds: whether one is better, and how sure that is."""

from tta.ranking.compute import anytime_area, arise, pareto_set
from tta.ranking.experiment import Block, Experiment
from tta.ranking.kemeny_order import kemeny
from tta.ranking.paired_tests import Comparison
from tta.ranking.pairwise import borda, mean_score, preferences
from tta.ranking.ranking import Ranking, Standing, rank
from tta.ranking.sample_wins import plackett_luce, wins
from tta.ranking.stream_gain import adaptation_regret, gain_falls

__all__ = [
    "Block",
    "Comparison",
    "Experiment",
    "Ranking",
    "Standing",
    "adaptation_regret",
    "anytime_area",
    "arise",
    "borda",
    "gain_falls",
    "kemeny",
    "mean_score",
    "pareto_set",
    "plackett_luce",
    "preferences",
    "rank",
    "wins",
]
