"""AETTA's rule: a reset when the estimated accuracy is low, or falls."""

import torch
from torch import Tensor, nn

from tta.adapters.base import Adapter, AdapterOutput, ResetScope
from tta.errors import InputError
from tta.estimates.base import AccuracyEstimate
from tta.functional.pixels import finite_samples
from tta.resets.base import Adaptation, ResetProtocol


class AdaptedClassifier(nn.Module):
    """A model as its method predicts with it, without learning: what estimates look at.

    Args:
        adapter: The method.
        model: The classifier; its layers come last in registration order, so that the last linear layer is its head.
    """

    def __init__(self, adapter: Adapter, model: nn.Module) -> None:
        super().__init__()
        self.adapter = adapter
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape ``(B, C)``, float32."""
        return self.adapter.predict(self.model, x)


class AccuracyEstimateReset(ResetProtocol):
    """A reset when an estimate of the accuracy, made without labels, is low or has fallen, as AETTA proposes.

    The estimate is made before the step, of the model that predicts the batch. After the step everything is reset where
    the estimate is below ``floor``, or where the mean of the last ``window`` estimates is more than ``drop`` below the
    mean of the ``window`` before them. The estimates seen are forgotten with every reset.

    Costs one forward pass per sample and those of the estimate. Samples with non-finite pixels take no part; a batch
    with too few finite samples for batch statistics, or whose estimate is unknown (NaN), decides nothing. With a method
    that learns nothing the rule still runs, and a reset changes nothing.

    Args:
        estimate: Any estimate. One that needs labelled source images is shown those of the run's data; in a loop of
            your own call its ``observe_source`` first. Estimates that compare with an earlier state of the model are
            asked before the model learns: ``GeneralizedDisagreement`` wants ``lag=1``.
        floor: Lowest estimate that is put up with, in ``[0, 1]``; 0 turns this part off.
        drop: Fall of the mean that is put up with, at least 0.
        window: Estimates in each mean, at least 1.

    Raises:
        InputError: For a value out of range.

    References:
        AETTA: Label-Free Accuracy Estimation for Test-Time Adaptation, CVPR 2024, section 5,
        https://arxiv.org/abs/2404.01351, with its code (commit 322a115). Differs from the code: a reset also clears the
        estimate's own smoothing, which theirs keeps, so that the first estimates after a reset are still of the model
        before it.
    """

    one_process = True
    history: Tensor
    estimated: Tensor

    def __init__(self, estimate: AccuracyEstimate, floor: float = 0.2, drop: float = 0.02, window: int = 5) -> None:
        super().__init__()
        if not 0.0 <= floor <= 1.0 or not drop >= 0.0 or window < 1:
            raise InputError(
                f"floor={floor}, drop={drop}, window={window}: need 0 <= floor <= 1, drop >= 0 and window >= 1"
            )
        self.estimate = estimate
        self.floor = floor
        self.drop = drop
        self.window = window
        self.register_buffer("history", torch.full((2 * window,), torch.nan))
        self.register_buffer("estimated", torch.tensor(torch.nan))

    def before(self, adaptation: Adaptation, x: Tensor, domains: Tensor | None) -> ResetScope | None:
        """Nothing; the estimate is made."""
        self.estimated.fill_(torch.nan)
        images = x[finite_samples(x)]
        if len(images) == 0:
            return None
        predictor = AdaptedClassifier(adaptation.adapter, adaptation.model)
        try:
            logits = predictor(images)
        except InputError:
            return None  # too few for batch statistics: where it matters, the method says so itself
        with torch.no_grad():
            self.estimated.copy_(self.estimate.update(predictor, images, logits))
        return None

    def after(self, adaptation: Adaptation, x: Tensor, output: AdapterOutput) -> ResetScope | None:
        """Everything, where the estimate is low or has fallen."""
        if bool(self.estimated.isnan()):
            return None
        self.history.copy_(torch.cat([self.history[1:], self.estimated[None]]))
        earlier, later = self.history.chunk(2)
        # A comparison with NaN is false: nothing has fallen before the history is full.
        fallen = later.mean() + self.drop < earlier.mean()
        return ResetScope.ALL if bool((self.estimated < self.floor) | fallen) else None

    def restarted(self) -> None:
        """Forget the estimates seen, and what the estimate has smoothed."""
        self.history.fill_(torch.nan)
        self.estimate.reset()

    def reset(self) -> None:
        """Back to the first batch."""
        self.restarted()
        self.estimated.fill_(torch.nan)

    @property
    def estimates(self) -> tuple[AccuracyEstimate, ...]:
        """The one."""
        return (self.estimate,)

    def scalars(self) -> dict[str, Tensor]:
        """The estimate of this batch; NaN where unknown."""
        return {"protocol_estimate": self.estimated.clone()}
