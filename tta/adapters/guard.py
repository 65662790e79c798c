"""A guard around a method: serves the source model where adapting does harm, rolls back, and in the end gives up."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tta.adapters.base import Adapter, AdapterOutput, Facts, ResetScope, Updater, checked_logits
from tta.adapters.matched_source import NEIGHBOURS, MatchedSource
from tta.adapters.snapshots import Snapshots
from tta.adapters.weight_copy import WeightCopy
from tta.errors import InputError
from tta.estimates.sequential import SequentialTest
from tta.functional.entropy import effective_classes

HORIZON = 128
"""Probes over which the reported gain is averaged, exponentially."""

EVEN = 64
"""Probes of all classes that tell what the source model favours."""

LARGEST = 256
"""Probes that go through the method as one batch, at most."""


class Guard(Adapter):
    r"""Makes any method safe to leave running: never far below the frozen source model, at a stated false-alarm rate.

    The guard measures, without target labels, how accurate the adapted and the source model are *on the stream*: it
    keeps labelled source images, gives them the power spectrum of the stream (blur, noise, contrast, brightness) and
    draws them in the class composition of the current batch, in batches of the stream's size. On such *probes* both
    models' answers are right or wrong. A collapse of the weights, batch statistics that suffer from one class per batch
    or from batches of one, and labels forgotten all show.

    At first the source model answers, while the method adapts. Every so often, as ``budget`` allows, a check adds
    paired differences (adapted right minus source right) to a sequential test. As soon as their mean is not below
    zero, the method answers. An alarm of the test

    1. rolls model, optimiser and method back to the newest snapshot that passed a check (the next older one if the
       alarm follows another, in the end the source),
    2. lets the source model answer until the mean of the checks since then is not below zero, and
    3. counts as a failure: after ``failures`` of them the source model answers for good and nothing adapts.

    With probability at least ``1 - level`` no alarm is ever raised as long as the adapted model is no more than
    ``tolerance`` less accurate than the source model on the probes, those of a check being taken as independent given
    the past. How far probes are from the stream is no matter of statistics: distortions that a spectrum cannot tell,
    such as elastic ones, are underestimated for both models, and the class composition is estimated by the source
    model, so poorly where that is mostly wrong.

    Returned logits are those of the method, or of the source model, which also answers for samples whose adapted logits
    are not finite. A batch of one, batches without reliable samples and constant logits are the method's matter. Resets
    that the method asks for are carried out here. Checks come after the method's step, which stays if one fails, such
    as for want of memory.

    Args:
        adapter: The method to guard; always needed.
        level: Probability of a false alarm over the whole stream, in ``(0, 1)``.
        tolerance: Accuracy that the adapted model may lack, in ``[0, 1)``.
        failures: Alarms after which the guard gives up, at least 1.
        budget: Extra forward passes per sample for the checks, on average, above 0. Beyond it: the first check, which
            sees ``images`` probes, at the first batch by which sixteen target images have come; and the source model's
            pass over every batch that it answers.
        probes: Probes per later check, at least 8; a whole batch of the stream's size at least, up to 256.
        images: Source images kept, at least 1 per class.
        snapshots: Snapshots kept besides the source, at least 1.
        seed: Non-negative seed of the draws of probes.

    Raises:
        InputError: If an argument is out of range; at the first batch if no labelled source images were seen.

    References:
        Monitoring Risks in Test-Time Adaptation, NeurIPS 2025, https://arxiv.org/abs/2507.08721, tests a proxy of the
        target risk sequentially and stops; here the proxy is the accuracy on matched source images, compared with the
        source model's, and the reaction is graded. Matching spectra follows FDA, CVPR 2020,
        https://arxiv.org/abs/2004.05498. The combination is this project's.
    """

    facts = Facts(
        needs_source_labels=True,
        forwards=3,
        one_process=True,
        trains="what the guarded method trains",
        paper="https://arxiv.org/abs/2507.08721",
    )

    serving: Tensor
    failed: Tensor
    credit: Tensor
    gain: Tensor
    samples: Tensor

    def __init__(
        self,
        adapter: Adapter | None = None,
        level: float = 0.05,
        tolerance: float = 0.01,
        failures: int = 3,
        budget: float = 1.0,
        probes: int = 64,
        images: int = 256,
        snapshots: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if adapter is None or isinstance(adapter, Guard):
            raise InputError(
                f"adapter={'another Guard' if adapter else None}: give the method to guard, such as Guard(SAR())"
            )
        if not 0.0 < level < 1.0:
            raise InputError(f"level={level}: need 0 < level < 1")
        if failures < 1 or snapshots < 1 or probes < 8 or images < 1 or seed < 0 or not budget > 0.0:
            raise InputError(
                f"failures={failures}, snapshots={snapshots}, probes={probes}, images={images}, seed={seed}, "
                f"budget={budget}: need failures, snapshots, images >= 1, probes >= 8, seed >= 0 and budget > 0"
            )
        self.adapter = adapter
        self.failures = failures
        self.budget = budget
        self.probes = probes
        self.snapshots = Snapshots(snapshots)
        self.test = SequentialTest(level / failures, tolerance)
        self.matched = MatchedSource(images, seed)
        self.source = WeightCopy()
        self.facts = replace(
            adapter.facts,
            needs_source_labels=True,
            smallest_domain=max(adapter.facts.smallest_domain, NEIGHBOURS),
            forwards=adapter.facts.forwards + 1 + math.ceil(budget),
            one_process=True,
        )
        self.register_buffer("serving", torch.zeros((), dtype=torch.bool))
        self.register_buffer("failed", torch.zeros((), dtype=torch.int64))
        self.register_buffer("credit", torch.zeros((), dtype=torch.float64))
        self.register_buffer("gain", torch.zeros(()))
        self.register_buffer("samples", torch.zeros((), dtype=torch.int64))
        self.fresh: dict[str, Any] | None = None
        self.events: list[str] = []

    # ---- the contract --------------------------------------------------------------------------------------------

    def prepare(self, model: nn.Module) -> None:
        """As the guarded method; the source's values are taken the first time."""
        self.adapter.prepare(model)
        self.source.fill(model)

    def trainable(self, model: nn.Module) -> list[nn.Parameter]:
        """What the guarded method trains."""
        return self.adapter.trainable(model)

    def observe_source(self, model: nn.Module, batches: Iterable[Tensor]) -> None:
        """Show source images to the guarded method."""
        if self.adapter.facts.needs_source_data:
            self.adapter.observe_source(model, batches)

    def observe_labelled_source(self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Keep labelled source images."""
        pairs = list(batches)
        if not pairs:
            raise InputError("source= gave no labelled image: the guard needs at least one of every class")
        images, labels = zip(*pairs, strict=True)
        with torch.no_grad():
            classes = self._source_logits(model, images[0][:1]).shape[1]
        self.matched.fill(torch.cat(images), torch.cat(labels), classes)

    def observe_target(self, model: nn.Module, batches: Iterable[Tensor], updater: Updater) -> None:
        """Show the stream to the guarded method, if it is transductive."""
        self.adapter.observe_target(model, batches, updater)

    def reset(self) -> None:
        """Distrust the method as at first, forget all evidence and snapshots."""
        self.adapter.reset()
        self.matched.reset()
        self.test.reset()
        self.serving.fill_(False)
        self.failed.zero_()
        self.credit.zero_()
        self.samples.zero_()
        self.gain.zero_()
        self.snapshots.states.clear()
        self.events.clear()
        self.fresh = None

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """The method's step, a check if one is due, and the answer of the one or the other model."""
        if not self.matched.filled:
            raise InputError(
                "Guard has seen no labelled source images: pass source= batches of images and labels to tta.online, or "
                "use a datamodule with source_dataloader()"
            )
        if self.fresh is None:
            self.fresh = updater.snapshot()
        if self.retired:
            self.samples += len(x)
            frozen = self._source_logits(model, x)
            return AdapterOutput(frozen, source_logits=frozen)
        self.matched.check(x)
        output = self._obeyed(model, self.adapter.adapt(model, x, updater), updater)
        self.samples += len(x)
        self.matched.see(x)
        self._check_if_due(model, x, updater)
        broken = ~torch.isfinite(output.logits).all(dim=1)
        if bool(self.serving) and not bool(broken.any()):
            return output
        frozen = self._source_logits(model, x)
        logits = torch.where(broken[:, None], frozen, output.logits) if self.serving else frozen
        return replace(output, logits=logits, source_logits=frozen)

    def predict(self, model: nn.Module, x: Tensor) -> Tensor:
        """What the guard would answer now."""
        if bool(self.serving):
            return self.adapter.predict(model, x)
        with torch.no_grad():
            return self._source_logits(model, x.nan_to_num(0.0, 0.0, 0.0))

    def sit_out(self, model: nn.Module, x: Tensor, updater: Updater) -> None:
        """As the guarded method."""
        self.adapter.sit_out(model, x, updater)

    def scalars(self) -> dict[str, Tensor]:
        """The method's own; the estimated gain over the source; whether the method answers; the failures."""
        own = {
            "gain_over_source": self.gain.clone(),
            "evidence_against": torch.tensor(self.test.evidence),
            "serving": self.serving.float(),
            "failures": self.failed.float(),
        }
        return {**self.adapter.scalars(), **own}

    def notes(self) -> list[str]:
        """What happened and why, a line for each event."""
        return list(self.events)

    @property
    def retired(self) -> bool:
        """Whether the guard has given up on the method."""
        return int(self.failed) >= self.failures

    # ---- checks --------------------------------------------------------------------------------------------------

    def _check_if_due(self, model: nn.Module, x: Tensor, updater: Updater) -> None:
        if int(self.matched.seen) < NEIGHBOURS:
            return
        batch = min(len(x), LARGEST)
        rounds = math.ceil(self.probes / batch)
        if int(self.matched.draws):
            self.credit += self.budget * len(x)
            cost = batch * (1 + 2 * rounds) + EVEN
            if self.credit < cost:
                return
            self.credit -= cost
        else:
            rounds = math.ceil(self.matched.size / batch)
        self._judge(model, updater, self._check(model, x[:batch], rounds))

    def _judge(self, model: nn.Module, updater: Updater, spread: float) -> None:
        if self.test.alarm:
            self._fail(model, updater, spread)
        elif not bool(self.serving) and self.test.mean >= 0.0:
            self._note("serves the method", f"on {int(self.test.seen)} probes it is not worse than the source model")
            self.serving.fill_(True)
        elif bool(self.serving) and float(self.gain) >= 0.0:
            self.snapshots.take(model, self.adapter, updater)

    def _check(self, model: nn.Module, x: Tensor, rounds: int) -> float:
        """Compare both models on probes; over how many classes the adapted one spreads its answers."""
        looks = self.matched.looks()
        even, _ = self.matched.draw(self.matched.uniform, EVEN, looks)
        prior = self.matched.composition(self._source_logits(model, x), self._source_logits(model, even))
        differences, answers = [], []
        for _ in range(rounds):
            images, labels = self.matched.draw(prior, len(x), looks)
            adapted = self.adapter.predict(model, images).argmax(dim=1)
            frozen = self._source_logits(model, images)
            differences.append((adapted == labels).float() - (frozen.argmax(dim=1) == labels).float())
            answers.append(adapted)
        found = torch.cat(differences)
        self.test.update(found)
        self.gain.lerp_(found.mean(), 1.0 - math.exp(-len(found) / HORIZON))
        return float(effective_classes(torch.bincount(torch.cat(answers), minlength=len(prior))))

    def _fail(self, model: nn.Module, updater: Updater, spread: float) -> None:
        self.failed += 1
        gap = -100 * float(self.gain)
        reason = f"on the last probes the method is {gap:.1f} points below the source model"
        what = (
            "gives up and serves the source model for good" if self.retired else "rolls back, serves the source model"
        )
        self._note(what, f"{reason}, which it spreads over {spread:.1f} classes")
        if self.retired or not self.snapshots.go_back(model, self.adapter, updater):
            self._to_source(model, updater, ResetScope.ALL)
        self.serving.fill_(False)
        self.test.reset()

    def _note(self, what: str, reason: str) -> None:
        self.events.append(f"sample {int(self.samples)}: {what}: {reason}")

    # ---- going back ----------------------------------------------------------------------------------------------

    def _obeyed(self, model: nn.Module, output: AdapterOutput, updater: Updater) -> AdapterOutput:
        scope = output.reset or self.adapter.wants_reset()
        if scope is not None:
            self._to_source(model, updater, scope)
        return replace(output, reset=None)

    def _to_source(self, model: nn.Module, updater: Updater, scope: ResetScope) -> None:
        self.source.write_to(model)
        if scope is ResetScope.ALL:
            self.adapter.reset()
            updater.restore(self.fresh or {})

    def _source_logits(self, model: nn.Module, x: Tensor) -> Tensor:
        return checked_logits(self.source.run_frozen(model, x))

    # ---- what buffers cannot hold --------------------------------------------------------------------------------

    def get_extra_state(self) -> dict[str, Any]:
        """Snapshots, the optimiser's first state, and events: tensors and plain types only."""
        return {"snapshots": list(self.snapshots.states), "fresh": self.fresh, "events": list(self.events)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.snapshots.states, self.fresh = list(state["snapshots"]), state["fresh"]
        self.events = list(state["events"])
