"""Accuracy from the agreement of two models."""

import torch
from torch import Tensor, nn

from tta.errors import InputError
from tta.estimates.base import AccuracyEstimate, predict_untouched


class GeneralizedDisagreement(AccuracyEstimate):
    """Take the share of predictions that an earlier state of the model shares for the accuracy.

    In theory the disagreement of two independently trained, calibrated models estimates their error. Two states of
    one stream that lie a step apart are anything but independent, so the estimate is far too high; what it shows is
    how much predictions still move. A collapsed model that no longer moves gets 100 %. It stands here as the baseline
    of the published comparison.

    Kept are the values of the parameters that require gradients, and of all floating point buffers, of the last ``lag``
    calls. Where the model has learnt from a batch between predicting it and the call, as in a loop
    ``logits = online(x); estimate.update(online.model, x, logits)`` with a method that predicts before its step, the
    last call's weights are those that predicted: the step before lies two calls back. Where the model is as it was
    when it predicted, set ``lag=1``. Until there are weights so old, the oldest are taken, and 1 before there are any.
    If the values change in number, they are collected anew.

    Args:
        lag: Calls back to the weights compared with: 2, or 1 where the model has not changed since it predicted.

    Raises:
        InputError: If ``lag`` is below 1.

    References:
        Assessing Generalization of SGD via Disagreement, ICLR 2022, https://arxiv.org/abs/2106.13799. The use of the
        step before follows the code of AETTA (commit 322a115).
    """

    name = "generalized_disagreement"
    paper = "https://arxiv.org/abs/2106.13799"
    forwards = 1

    growing = ("weights",)
    weights: Tensor

    def __init__(self, lag: int = 2) -> None:
        super().__init__()
        if lag < 1:
            raise InputError(f"lag={lag}: GeneralizedDisagreement needs lag >= 1")
        self.lag = lag
        self.register_buffer("weights", torch.empty(0, 0))

    def scores(self, model: nn.Module, x: Tensor, logits: Tensor) -> Tensor:
        """1 where the earlier weights predict the same class, else 0, shape ``(B,)``, float32."""
        values = _values(model)
        if not len(self.weights) or self.weights.shape[1] != sum(value.numel() for value in values.values()):
            return torch.ones(len(x), device=logits.device)
        parts = torch.split(self.weights[0], [value.numel() for value in values.values()])
        earlier = {
            name: part.view_as(value).to(value.dtype) for (name, value), part in zip(values.items(), parts, strict=True)
        }
        return (predict_untouched(model, x, earlier).argmax(dim=1) == logits.argmax(dim=1)).float()

    def update(self, model: nn.Module, x: Tensor, logits: Tensor) -> Tensor:
        """Share of the batch on which both agree, and keep the present weights for later calls."""
        agreement = self.scores(model, x, logits).mean()
        now = torch.cat([value.detach().float().flatten() for value in _values(model).values()]).unsqueeze(0)
        fits = self.weights.shape[1] == now.shape[1]
        self.weights = torch.cat([self.weights, now])[-self.lag :].clone() if fits else now.clone()
        return agreement

    def reset(self) -> None:
        """Forget all weights."""
        self.weights = self.weights.new_empty(0, 0)


def _values(model: nn.Module) -> dict[str, Tensor]:
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    buffers = {name: value for name, value in model.named_buffers() if value.is_floating_point()}
    return {**parameters, **buffers}
