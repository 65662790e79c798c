"""Checkpoints of a run that adapts."""

import math
from typing import Any

import torch
from pytorch_lightning.trainer.states import TrainerFn

from tta.errors import InputError
from tta.modules.estimation import StreamEstimates
from tta.modules.frozen_evaluation import FrozenEvaluation
from tta.modules.processes import of_all_processes, of_this_process, own_buffers
from tta.modules.updater import LightningUpdater
from tta.monitor import StreamMonitor
from tta.resets import ResetProtocol
from tta.snapshot import SourceSnapshot


class ResumableAdaptation(FrozenEvaluation):
    """The part of the online host behind checkpoints: a run that goes on equals one that never stopped.

    Attributes:
        backward_in_forwards: What a backward pass over what is trained costs, in forward passes; 0 before the first
            batch.
    """

    monitor: StreamMonitor
    estimates: StreamEstimates
    protocol: ResetProtocol
    source: SourceSnapshot
    updater: LightningUpdater
    backward_in_forwards: float = 0.0
    _resumed: dict[str, Any] | None = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is not in the state dict: source values, counters, the state of the random generator."""
        norm = self.updater.gradient_norm
        own = {
            "adapter": type(self.adapter).__name__,
            "method": own_buffers(self.adapter),
            "source": self.source.values,
            "monitor": self.monitor.state_dict(),
            "estimates": self.estimates.state_dict(),
            "protocol": self.protocol.label,
            "forgetting": self.forgetting,
            "skipped_steps": self.updater.skipped_steps,
            "gradient_norm": math.nan if norm is None else float(norm),
            "forwards": self.cost.forwards,
            "backwards": self.cost.backwards,
            "backward_in_forwards": self.backward_in_forwards,
            "rng": torch.get_rng_state(),
        }
        checkpoint["online_adaptation"] = of_all_processes(self.trainer, own)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back.

        Raises:
            InputError: If the checkpoint comes from another kind of run, another adapter or another protocol.
        """
        states = checkpoint.get("online_adaptation")
        name = type(self.adapter).__name__
        if states is None or states[0]["adapter"] != name:
            made_by = "tta fit" if states is None else f"adapter {states[0]['adapter']}"
            raise InputError(
                f"the checkpoint was made by {made_by}, this run uses adapter {name}: --ckpt_path resumes the very "
                "same run; source weights go to --model.weights"
            )
        if self.trainer.state.fn == TrainerFn.FITTING:
            own = of_this_process(self.trainer, states)
            checkpoint["state_dict"] |= {f"adapter.{name}": value for name, value in own["method"].items()}
            self._resume(own)
        else:  # a frozen evaluation follows no protocol, so whatever protocol the run had will do
            weights = {k: v for k, v in checkpoint["state_dict"].items() if not k.startswith("protocol.")}
            checkpoint["state_dict"] = weights | self.protocol.state_dict(prefix="protocol.")

    def _resume(self, state: dict[str, Any]) -> None:
        self._resumed = state
        if state.get("protocol") != self.protocol.label:
            raise InputError(
                f"the checkpoint was made under protocol {state.get('protocol')}, this run's is {self.protocol.label}: "
                "--ckpt_path resumes the very same run"
            )
        try:
            self.monitor.load_state_dict(state["monitor"])
        except RuntimeError as error:
            raise InputError(
                "the checkpoint is of a stream with other domains, classes or window: --ckpt_path resumes the very "
                "same run"
            ) from error
        self.estimates.load_state_dict(state["estimates"])
        self.forgetting = state["forgetting"]
        self.source.values = state["source"]
        self.updater.skipped_steps = state["skipped_steps"]
        if not math.isnan(state["gradient_norm"]):
            self.updater.gradient_norm = torch.tensor(state["gradient_norm"])
        self.cost.forwards, self.cost.backwards = state["forwards"], state["backwards"]
        self.backward_in_forwards = state["backward_in_forwards"]

    def on_train_start(self) -> None:
        """Go on with the random generator where it stood."""
        if self._resumed is not None:
            torch.set_rng_state(self._resumed["rng"].cpu())
