"""What held-out source images tell of a classifier's posteriors: calibration and confusion."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tta.adapters.label_shift_source import HEADS, SourceFigures
from tta.functional.label_shift import bias_corrected_temperature
from tta.modules.prior_draws import Drawn


@torch.no_grad()
def calibrate(source: SourceFigures, head: nn.Linear, draws: Sequence[Drawn]) -> dict[str, Tensor]:
    """Calibrate each of the heads of ``HEADS``, and measure its confusion.

    Args:
        source: The trained network, not yet calibrated; moved to the device of the head.
        head: The classifier's head, of ``C`` outputs.
        draws: Held-out features, drawn with several priors; on any device.

    Returns:
        For each head, its name before a point: ``temperatures`` (scalar), ``biases`` ``(C,)``, ``confusions``
        ``(C, C)`` (column: true class; a class that no draw took counts as never confused) and ``means`` ``(P, C)``,
        the mean posterior of each draw.
    """
    # After training the trainer moves the module to the CPU, and the draws stay where they were made.
    device = head.weight.device
    draws = [Drawn(*(part.to(device) for part in draw)) for draw in draws]
    features, labels = torch.cat([draw.features for draw in draws]), torch.cat([draw.labels for draw in draws])
    log_priors = torch.cat([draw.prior.log().expand(len(draw.labels), -1) for draw in draws])
    sizes = [len(draw.labels) for draw in draws]
    source.to(device)
    tensors: dict[str, Tensor] = {}
    for number, name in enumerate(HEADS):
        logits = source.logits(name, head, features)
        temperature, bias = bias_corrected_temperature(logits, labels, log_priors, source.biases[number])
        posteriors = (logits / temperature + bias).softmax(dim=1)
        tensors |= {
            f"{name}.temperatures": temperature,
            f"{name}.biases": bias,
            f"{name}.confusions": _confusion(posteriors, labels),
            f"{name}.means": torch.stack([part.mean(dim=0) for part in torch.split(posteriors, sizes)]),
        }
    return tensors


def _confusion(posteriors: Tensor, labels: Tensor) -> Tensor:
    columns = torch.eye(posteriors.shape[1], device=posteriors.device)
    for k in set(labels.tolist()):
        columns[k] = posteriors[labels == k].mean(dim=0)
    return columns.T
