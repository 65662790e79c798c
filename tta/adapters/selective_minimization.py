"""What SAR, EATA, DeYO, ROID and their kin share: they learn from some samples of a batch alone."""

from torch import nn

from tta.adapters.entropy_minimization import EntropyMinimization
from tta.adapters.first_pass import FirstPasses
from tta.adapters.select import Select


class SelectiveMinimization(EntropyMinimization):
    """Base of methods that learn from those samples of a batch that they select by their predictions.

    Attributes:
        passes: Takes the first pass over each batch; methods tell it which samples teach.

    Args:
        select: Layers whose parameters adapt.
    """

    def __init__(self, select: Select) -> None:
        super().__init__(select)
        self.passes = FirstPasses()

    def prepare(self, model: nn.Module) -> None:
        """As all entropy minimisation; the first pass looks at the model anew."""
        super().prepare(model)
        self.passes.prepare()

    def reset(self) -> None:
        """Forget how many samples taught."""
        self.passes.reset()
