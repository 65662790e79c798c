"""Everything that is measured on a stream, step by step."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tta.adapters.base import AdapterOutput
from tta.errors import InputError
from tta.functional.entropy import marginal_entropy
from tta.monitor.calibration import StreamCalibration
from tta.monitor.collapse import compare
from tta.monitor.delay import LabelDelay
from tta.monitor.window import SampleWindow


class StreamMonitor(nn.Module):
    """Accuracy, calibration, stability and collapse of an adapting model.

    All state is in buffers of fixed size, so a stream of any length costs the same memory and a checkpoint carries
    everything. It stays on the CPU whatever device it is moved to: the logits of a batch go there once.

    Args:
        num_classes: Number of classes ``C``.
        domains: Names of the stream's domains.
        window: Samples that windowed figures look back over.
        label_delay: Samples after which a sample's label is known: until then it enters no figure that needs it.

    Raises:
        InputError: For an argument out of range.
    """

    counts: Tensor
    nll_sum: Tensor
    domain_counts: Tensor
    first_flag: Tensor
    flag_steps: Tensor

    def __init__(
        self, num_classes: int, domains: Sequence[str] = ("stream",), window: int = 500, label_delay: int = 0
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise InputError(f"num_classes={num_classes}: need at least 2")
        if window < 1:
            raise InputError(f"window={window}: need at least 1 sample")
        self.num_classes = num_classes
        self.domains = list(domains)
        self.window = SampleWindow(window, num_classes)
        self.delay = LabelDelay(label_delay, len(SCORED))
        self.calibration = StreamCalibration()
        self.register_buffer("counts", torch.zeros(len(COUNTS), dtype=torch.int64))
        self.register_buffer("nll_sum", torch.zeros((), dtype=torch.float64))
        self.register_buffer("domain_counts", torch.zeros(len(self.domains), len(DOMAIN_COUNTS), dtype=torch.int64))
        self.register_buffer("first_flag", torch.full((2,), -1))
        self.register_buffer("flag_steps", torch.zeros(2, dtype=torch.int64))

    def count(self, name: str) -> int:
        """One of the running counts, by its name in ``COUNTS``."""
        return int(self.counts[COUNTS.index(name)])

    def add_up(self, summed: Callable[[Tensor], Tensor], processes: int) -> None:
        """Turn the figures of one process' share of a stream into those of the whole.

        Resets, batches and the share of batches under a flag are those of this process, which reset together with the
        others; the first sample under a flag is estimated from its share.

        Args:
            summed: Sum of a tensor over processes.
            processes: Their number.
        """
        together = [COUNTS.index(name) for name in ("batches", "resets")]
        before = self.counts[together]
        for total in (self.counts, self.nll_sum, self.domain_counts, *self.calibration.buffers()):
            total.copy_(summed(total))
        self.counts[together] = before
        self.first_flag.copy_(torch.where(self.first_flag >= 0, self.first_flag * processes, self.first_flag))

    def update(
        self,
        output: AdapterOutput,
        labels: Tensor | None = None,
        domains: Tensor | None = None,
        source_predictions: Tensor | None = None,
    ) -> dict[str, float]:
        """Take in one batch.

        Args:
            output: What the adapter gave back for it.
            labels: True classes, shape ``(B,)``, int64, ``-1`` where unknown.
            domains: Domain of each sample, shape ``(B,)``, int64.
            source_predictions: The frozen source model's classes, shape ``(B,)``, int64, ``-1`` where it was not run.

        Returns:
            Figures of this step, NaN where unknown; see the documentation for their meaning.

        Raises:
            InputError: If the model has another number of classes than the stream, or a domain is not of the stream.
        """
        logits = output.logits.cpu()
        size = len(logits)
        if logits.shape[1] != self.num_classes:
            raise InputError(f"the model gives {logits.shape[1]} classes and the stream has {self.num_classes}")
        labels = torch.full((size,), -1) if labels is None else labels.cpu()
        if bool((labels >= self.num_classes).any()):
            raise InputError(f"label {int(labels.max())} in a stream of {self.num_classes} classes")
        if domains is not None and bool((domains >= len(self.domains)).any()):
            raise InputError(f"domain {int(domains.max())} in a stream whose domains are {', '.join(self.domains)}")
        probabilities = logits.softmax(dim=1)
        source = torch.full((size,), -1) if source_predictions is None else source_predictions.cpu()
        domains = torch.zeros_like(labels) if domains is None else domains.cpu()
        rows = self._rows(logits, probabilities, labels, domains, source)
        self._count(output, source)
        self.window.append(probabilities, torch.full_like(labels, -1), source)
        self._score(self.delay.push(rows))
        return {**self._cumulative(), **self._batch(output, probabilities), **self._windowed()}

    def settle(self) -> None:
        """Score the samples whose labels are still awaited: the stream is over."""
        self._score(self.delay.release())

    def _rows(self, logits: Tensor, probabilities: Tensor, labels: Tensor, domains: Tensor, source: Tensor) -> Tensor:
        confidence, predictions = probabilities.max(dim=1)
        numbers = int(self.window.seen) + torch.arange(len(labels))
        nll = F.cross_entropy(logits.double(), labels.clamp(min=0), reduction="none")
        columns = (numbers, labels, predictions, confidence, nll, domains, source)
        return torch.stack([column.double() for column in columns], dim=1)

    def _count(self, output: AdapterOutput, source: Tensor) -> None:
        flagged = 0 if output.finite is None else len(source) - int(output.finite.sum())
        counted = {
            "samples": len(source),
            "batches": 1,
            "resets": int(output.reset is not None),
            "flagged": flagged,
            "compared": int((source >= 0).sum()),
        }
        self.counts += torch.tensor([counted.get(name, 0) for name in COUNTS])

    def _score(self, rows: Tensor) -> None:
        numbers, labels, predictions, _, _, domains, source = rows.long().unbind(dim=1)
        confidence, nll = rows[:, SCORED.index("confidence")].float(), rows[:, SCORED.index("nll")]
        known = labels >= 0
        correct = predictions == labels
        paired = known & (source >= 0)
        columns = torch.stack([known, correct & known, paired, correct & paired, (source == labels) & paired], 1).long()
        self.counts[1 : 1 + len(DOMAIN_COUNTS)] += columns.sum(dim=0)
        self.domain_counts.index_add_(0, domains, columns)
        self.calibration.update(confidence[known], correct[known])
        self.nll_sum += nll[known].sum()
        self.window.reveal(numbers, labels)

    def _cumulative(self) -> dict[str, float]:
        counts = dict(zip(COUNTS, self.counts.tolist(), strict=True))
        return {
            "samples": counts["samples"],
            "accuracy": _ratio(counts["correct"], counts["labelled"]),
            "ece": self.calibration.compute(),
            "nll": _ratio(float(self.nll_sum), counts["labelled"]),
            "resets": counts["resets"],
            "flagged": counts["flagged"],
        }

    def _batch(self, output: AdapterOutput, probabilities: Tensor) -> dict[str, float]:
        reliable = math.nan if output.reliable is None else float(output.reliable.float().mean())
        return {
            "batch_marginal_entropy": float(marginal_entropy(probabilities)),
            "reliable_share": reliable,
            "loss": math.nan if output.loss is None else float(output.loss),
            **{f"adapter/{name}": float(value) for name, value in output.scalars.items()},
        }

    def _windowed(self) -> dict[str, float]:
        probabilities, labels, source = self.window.rows()
        predictions = probabilities.argmax(dim=1)
        alone = compare(predictions, predictions, labels, self.num_classes)
        paired = source >= 0
        verdict = compare(predictions[paired], source[paired], labels[paired], self.num_classes)
        for position, flag in enumerate((verdict.collapsed, verdict.below_source)):
            if flag:
                self.flag_steps[position] += 1
                if self.first_flag[position] < 0:
                    self.first_flag[position] = self.count("samples")
        return {
            "window_accuracy": alone.accuracy,
            "window_accuracy_paired": verdict.accuracy,
            "source_window_accuracy": verdict.source_accuracy,
            "marginal_entropy": float(marginal_entropy(probabilities)),
            "effective_classes": alone.effective_classes,
            "source_effective_classes": verdict.source_effective_classes,
            "top_class_share": alone.top_class_share,
            "source_top_class_share": verdict.source_top_class_share if bool(paired.any()) else math.nan,
            "source_agreement": verdict.agreement,
            "collapsed": float(verdict.collapsed),
            "below_source": float(verdict.below_source),
        }

    def summary(self) -> dict[str, Any]:
        """Figures of the whole stream so far, plain types, ``None`` where unknown."""
        batches = max(self.count("batches"), 1)
        collapse: dict[str, Any] = {}
        for position, name in enumerate(("collapsed", "below_source")):
            first = int(self.first_flag[position])
            collapse[name] = first >= 0
            collapse[f"{name}_at"] = first if first >= 0 else None
            collapse[f"{name}_share"] = int(self.flag_steps[position]) / batches
        paired = self.count("paired")
        figures = {
            "accuracy": _ratio(self.count("correct"), self.count("labelled")),
            "accuracy_paired": _ratio(self.count("paired_correct"), paired),
            "source_accuracy": _ratio(self.count("source_correct"), paired),
            "ece": self.calibration.compute(),
            "nll": _ratio(float(self.nll_sum), self.count("labelled")),
        }
        return {
            "samples": self.count("samples"),
            "batches": self.count("batches"),
            **{name: none_if_nan(value) for name, value in figures.items()},
            "per_domain": self.per_domain(),
            "collapse": collapse,
            "resets": self.count("resets"),
            "flagged": self.count("flagged"),
        }

    def per_domain(self) -> dict[str, dict[str, Any]]:
        """Labelled samples, accuracy and the source model's accuracy on the samples it was run on, by domain."""
        rows = {}
        for name, row in zip(self.domains, self.domain_counts.tolist(), strict=True):
            labelled, correct, paired, _, source_correct = row
            rows[name] = {
                "samples": labelled,
                "accuracy": none_if_nan(_ratio(correct, labelled)),
                "source_accuracy": none_if_nan(_ratio(source_correct, paired)),
            }
        return rows

    def _apply(self, fn: Any, recurse: bool = True) -> "StreamMonitor":  # noqa: ANN401  moving it is refused silently
        return self


DOMAIN_COUNTS = ("labelled", "correct", "paired", "paired_correct", "source_correct")
SCORED = ("number", "label", "prediction", "confidence", "nll", "domain", "source")
COUNTS = ("samples", *DOMAIN_COUNTS, "batches", "resets", "flagged", "compared")


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def none_if_nan(value: float) -> float | None:
    """``None`` for NaN, which JSON cannot hold."""
    return None if math.isnan(value) else value
