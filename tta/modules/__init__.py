"""Lightning modules: the online host, and the training of what methods need."""

from tta.modules.aggregator_pretraining import AggregatorPretraining
from tta.modules.expert_training import ExpertTraining
from tta.modules.itta_training import ITTATraining
from tta.modules.label_shift_training import LabelShiftTraining
from tta.modules.meta_distillation import MetaDistillation
from tta.modules.online_adaptation import OnlineAdaptation
from tta.modules.source_training import SourceTraining
from tta.modules.weights import load_weights

__all__ = (
    "AggregatorPretraining",
    "ExpertTraining",
    "ITTATraining",
    "LabelShiftTraining",
    "MetaDistillation",
    "OnlineAdaptation",
    "SourceTraining",
    "load_weights",
)
