"""Training of the aggregator by itself."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn

from datamodules import RotatedDigits
from models import DomainExperts
from tta.errors import InputError
from tta.modules import AggregatorPretraining

GROUPS = [["0"], ["45"]]


def data(**arguments: Any) -> RotatedDigits:
    return RotatedDigits(angles=[0, 45], image_size=16, batch_size=64, **arguments)


@pytest.fixture
def trainer(tmp_path: Any) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    limits = {"limit_train_batches": 4, "limit_val_batches": 1}
    return Trainer(max_epochs=2, accelerator="cpu", logger=False, default_root_dir=tmp_path, **quiet, **limits)


def test_only_the_aggregator_learns(backbone: DomainExperts, trainer: Trainer) -> None:
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    trainer.fit(AggregatorPretraining(backbone, num_classes=10), data())
    changed = {name for name, tensor in backbone.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("aggregator.")}
    assert 0.0 <= trainer.callback_metrics["val/accuracy"] <= 1.0


def test_only_the_aggregator_is_in_train_mode(backbone: DomainExperts) -> None:
    module = AggregatorPretraining(backbone, num_classes=10).train()
    training = {name.split(".")[0] for name, part in backbone.named_modules() if part.training}
    assert training == {"aggregator"}
    assert not any(part.training for part in module.eval().backbone.modules())


def test_the_loss_is_cross_entropy_of_the_aggregators_head(backbone: DomainExperts, digits: Any) -> None:
    module = AggregatorPretraining(backbone, num_classes=10).eval()
    module.log = lambda *_, **__: None
    x, y = digits[0][:8], digits[1][:8]
    logits: Tensor = backbone.aggregated_logits(x)
    expected = -logits.log_softmax(dim=1)[torch.arange(8), y].mean()
    assert torch.allclose(module.training_step({"image": x, "label": y}, 0), expected)


def test_the_expert_of_the_domain_can_be_hidden(backbone: DomainExperts, trainer: Trainer) -> None:
    calls: list[tuple[int, int]] = []
    module = AggregatorPretraining(backbone, groups=GROUPS, num_classes=10)
    step = module.training_step

    def watched(batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        domain = int(batch["domain"][0])
        hooks = [
            expert.register_forward_pre_hook(lambda *_, number=number: calls.append((domain, number)))
            for number, expert in enumerate(backbone.experts)
        ]
        loss = step(batch, batch_idx)
        for hook in hooks:
            hook.remove()
        return loss

    module.training_step = watched
    trainer.fit(module, data(batches="one_domain"))
    assert set(calls) == {(0, 1), (1, 0)}


def test_bad_input(backbone: DomainExperts, trainer: Trainer, untrained: Callable[..., nn.Module]) -> None:
    with pytest.raises(InputError, match=r"CifarResNet has no experts, .*such as models.DomainExperts"):
        AggregatorPretraining(untrained("gn"))
    with pytest.raises(InputError, match="a training batch mixes domains: give the data module batches=one_domain"):
        trainer.fit(AggregatorPretraining(backbone, groups=GROUPS, num_classes=10), data())
    with pytest.raises(InputError, match=r"shape \(64, 10\) and the data has 7 classes"):
        trainer.fit(AggregatorPretraining(backbone, num_classes=7), data())
