"""ITTA: affine maps after blocks, adapted by a learnt consistency loss."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tta.adapters.base import Adapter, AdapterOutput, Facts, Updater
from tta.adapters.blocks import Change, changed_outputs, check_blocks
from tta.adapters.consistency import AffineMaps, LearnableConsistency, StyleBank, StyleDraw, parameter_shape
from tta.adapters.entropy_minimization import no_contribution
from tta.adapters.head import features_of, linear_head
from tta.companion import Companion
from tta.errors import InputError, first_line

KIND = "ITTA"
"""Kind of its companion."""

RELEASED_SCALE = 1e-6
"""Factor of the loss in the released code (its ``ada_lr``)."""


class ITTA(Adapter):
    r"""Make features invariant to style, by a loss that was trained for it, over affine maps inserted after blocks.

    One step: the features of the batch, and those of the batch with mixed styles (MixStyle after one of the style
    blocks), differ by ``d``; the loss is the mean square of ``f_w(d)``, where ``f_w`` was trained together with the
    network by :class:`tta.modules.ITTATraining` so that its gradients agree with those of classification. The maps
    start as the identity and are all that changes. Styles are mixed before the maps of the same block.

    Returned logits are those from after the update, without mixed styles. Every finite sample teaches. With styles
    from the batch, a batch of one has nobody to mix with: it is predicted and teaches nothing. With ``style_source``
    ``bank`` it takes styles of source images and teaches. On constant logits the maps move, as they do not look at
    logits. When to restore the maps is the host's matter; the authors never do.

    Departures from the authors' code (commit 63794c4): the loss is not multiplied by 1e-6, without which nothing
    adapts (see ``released_protocol``); dropout stays off; any network and any blocks, where theirs is a ResNet-18 at
    224 pixels; the mixed styles of a stream are drawn from ``seed``.

    Args:
        companion: What :class:`tta.modules.ITTATraining` made, or the ``companion.safetensors`` that it was saved to.
        blocks: Blocks after which maps are inserted; by default all that the companion was trained for.
        style_blocks: Blocks after which styles are mixed, one of them at each step; by default the companion's.
        affine: ``full``, as published, has one weight and bias per activation, which ties it to the images' size in
            training; ``channel`` has one per channel.
        relu: Put a ReLU between the maps. By default, as published, after blocks whose outputs are never negative;
            after others, such as those of a transformer, the maps would not start as the identity.
        style_source: Take styles from the ``batch``, as published, or from the ``bank`` of source images.
        steps: Steps per batch, at least 1.
        alpha: Parameter of the Beta distribution of the mixing weights; 0.1 as published.
        seed: Non-negative seed of mixed styles.
        released_protocol: Behave as the released code, for comparisons: the loss is multiplied by 1e-6, so that Adam's
            epsilon swamps its gradient, and a batch of one mixes with itself, which leaves no difference to minimise.
            It adapts nothing: with its batches of one, Adam and learning rate of 5e-6, logits change by less than 1e-4.

    Raises:
        InputError: If an argument is out of range, or the companion is missing, or of another method.

    References:
        Improved Test-Time Adaptation for Domain Generalization, CVPR 2023, https://arxiv.org/abs/2304.04494.
    """

    facts = Facts(
        needs_gradients=True,
        steps_per_batch=1,
        needs_companion=True,
        predicts_after=True,
        forwards=3,
        backwards=2,
        trains="affine maps inserted after blocks",
        paper="https://arxiv.org/abs/2304.04494",
    )

    batches: Tensor

    def __init__(
        self,
        companion: str | Path | Companion,
        blocks: list[str] | None = None,
        style_blocks: list[str] | None = None,
        affine: Literal["full", "channel"] = "full",
        relu: bool | None = None,
        style_source: Literal["batch", "bank"] = "batch",
        steps: int = 1,
        alpha: float = 0.1,
        seed: int = 0,
        released_protocol: bool = False,
    ) -> None:
        super().__init__()
        if affine not in ("full", "channel") or style_source not in ("batch", "bank"):
            raise InputError(
                f"affine={affine!r}, style_source={style_source!r}: affine is full or channel, style_source is batch "
                "or bank"
            )
        if steps < 1 or alpha <= 0.0 or seed < 0:
            raise InputError(f"steps={steps}, alpha={alpha}, seed={seed}: need steps >= 1, alpha > 0 and seed >= 0")
        self.settings, self.consistency, self.bank = _rebuilt(Companion.of(companion, KIND))
        self.blocks = _chosen(blocks, self.settings["blocks"], "blocks")
        self.style_blocks = _chosen(style_blocks, self.settings["style_blocks"], "style_blocks")
        self.affine = affine
        self.style_source = style_source
        self.steps = steps
        self.alpha = alpha
        self.seed = seed
        self.released_protocol = released_protocol
        self.facts = replace(type(self).facts, steps_per_batch=steps, forwards=2 * steps + 1, backwards=2 * steps)
        if style_source == "bank" and not len(self.bank):
            raise InputError(
                "style_source='bank': the companion has no styles of source images: train it, or use batch"
            )
        rows = [self.settings["blocks"].index(name) for name in self.blocks]
        self.shapes = [parameter_shape(self.settings["shapes"][row], affine) for row in rows]
        self.maps = AffineMaps(
            self.shapes, [self.settings["nonnegative"][row] if relu is None else relu for row in rows]
        )
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def prepare(self, model: nn.Module) -> None:
        """Eval mode; nothing in the model requires gradients.

        Raises:
            InputError: If the companion was trained for another network: other blocks, feature length or classes.
        """
        check_blocks(model, self.blocks, "ITTA's blocks, by its companion")
        check_blocks(model, self.style_blocks, "ITTA's style_blocks, by its companion")
        head = linear_head(model, self.settings["head"])
        got, wanted = (head.in_features, head.out_features), (self.settings["features"], self.settings["classes"])
        if got != wanted:
            raise InputError(
                f"ITTA: the companion was trained for {wanted[0]} features and {wanted[1]} classes, and the head "
                f"{self.settings['head']!r} has {got[0]} and {got[1]}: give the companion of this network"
            )
        model.eval()
        model.requires_grad_(False)

    def trainable(self, model: nn.Module) -> list[nn.Parameter]:
        """Weights and biases of the maps; nothing of the model."""
        return list(self.maps.parameters())

    def reset(self) -> None:
        """Maps are the identity again, and styles are drawn as at the start."""
        self.maps.reset()
        self.batches.zero_()

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """One or more steps on the maps, then predict."""
        loss = self._learn(model, x, self._has_lenders(len(x)), updater)
        return AdapterOutput(self.predict(model, x), loss=loss)

    def predict(self, model: nn.Module, x: Tensor) -> Tensor:
        """Logits ``(B, C)`` of the network with the maps in it. Changes nothing."""
        with self._inserted(model):
            return super().predict(model, x)

    def sit_out(self, model: nn.Module, x: Tensor, updater: Updater) -> None:
        """Contribute zero gradients if other processes have something to learn."""
        self._learn(model, x.nan_to_num(0.0, 0.0, 0.0), False, updater)

    def _has_lenders(self, batch: int) -> bool:
        return batch > 1 or self.style_source == "bank" or self.released_protocol

    def _learn(self, model: nn.Module, x: Tensor, teaches: bool, updater: Updater) -> Tensor | None:
        if not updater.any(teaches):
            return None
        for step in range(self.steps):
            with torch.enable_grad():
                plain, logits = self._features(model, x, None)
                styled, styled_logits = self._features(model, x, self._draw(x, step))
                # Logits teach nothing, but what is not finite shows there, and backward passes are counted there.
                loss = no_contribution(logits) + no_contribution(styled_logits)
                if teaches:
                    loss = loss + self.consistency.loss(plain, styled)
                updater.backward(loss * RELEASED_SCALE if self.released_protocol else loss)
            updater.step()
        self.batches += 1
        return loss.detach() if teaches else None

    def _draw(self, x: Tensor, step: int) -> StyleDraw:
        bank = len(self.bank) if self.style_source == "bank" else None
        seed = (self.seed, int(self.batches), step)
        return StyleDraw.make(seed, len(x), len(self.style_blocks), self.alpha, x.device, bank)

    def _features(self, model: nn.Module, x: Tensor, draw: StyleDraw | None) -> tuple[Tensor, Tensor]:
        with self._inserted(model, draw), features_of(linear_head(model, self.settings["head"])) as features:
            logits = model(x)
        return features[-1], logits

    def _inserted(self, model: nn.Module, draw: StyleDraw | None = None) -> AbstractContextManager[None]:
        changes: dict[str, Change] = {name: partial(self._map, name) for name in self.blocks}
        if draw is not None:
            name = self.style_blocks[draw.block]
            styled = partial(self._mix, name, draw)
            after = changes.get(name)
            changes[name] = styled if after is None else lambda output: after(styled(output))
        return changed_outputs(model, changes)

    def _mix(self, name: str, draw: StyleDraw, activations: Tensor) -> Tensor:
        if self.style_source == "batch":
            return draw.mix(activations)
        return draw.mix(activations, self.bank.styles(self.settings["style_blocks"].index(name), draw.other))

    def _map(self, name: str, activations: Tensor) -> Tensor:
        row, shape = self.blocks.index(name), list(activations.shape[1:])
        if parameter_shape(shape, self.affine) != self.shapes[row]:
            wanted = self.settings["shapes"][self.settings["blocks"].index(name)]
            raise InputError(
                f"ITTA: block {name!r} gives activations of shape {shape} and the companion was trained for {wanted}: "
                "use images of that size and the companion of this network, or affine='channel' for another size"
            )
        mapped: Tensor = self.maps(row, activations)
        return mapped


def _chosen(names: list[str] | None, known: Sequence[str], argument: str) -> list[str]:
    if names is None:
        return list(known)
    if not names or len(set(names)) < len(names) or not set(names) <= set(known):
        raise InputError(
            f"{argument}={names}: the companion was trained for {', '.join(known)}; choose among these, each once"
        )
    return list(names)


def _rebuilt(companion: Companion) -> tuple[dict[str, Any], LearnableConsistency, StyleBank]:
    """Settings, loss and bank of a companion."""
    tensors, settings = companion.tensors, companion.settings
    needed = {"blocks", "shapes", "nonnegative", "style_blocks", "head", "features", "classes"}
    try:
        depth, features = tensors["consistency.weight"].shape
        consistency = LearnableConsistency(features, depth).requires_grad_(False)
        channels = [tensors[f"bank.mean{row}"].shape[1] for row in range(len(settings["style_blocks"]))]
        bank = StyleBank(channels, max(len(tensors["bank.mean0"]), 1))
        parts = [("consistency.", consistency), *([("bank.", bank)] if len(tensors["bank.mean0"]) else [])]
        for name, part in parts:
            part.load_state_dict({key[len(name) :]: value for key, value in tensors.items() if key.startswith(name)})
        lacking = needed - set(settings)
    except (KeyError, RuntimeError, ValueError) as error:
        raise InputError(f"the companion of ITTA is incomplete ({first_line(error)}): train it again") from error
    if lacking:
        raise InputError(f"the companion of {KIND} lacks {', '.join(sorted(lacking))}: train it again")
    return settings, consistency, bank
