"""Lightning modules: the online host, and the training of what methods need."""

from tta.modules.online_adaptation import OnlineAdaptation
from tta.modules.source_training import SourceTraining
from tta.modules.weights import load_weights

__all__ = ("OnlineAdaptation", "SourceTraining", "load_weights")
