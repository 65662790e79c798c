import torch
from torch import nn

import tta


def test_source_is_the_model_in_eval_mode(trained, stream):
    model = nn.Sequential(trained("bn"), nn.Dropout(0.5)).train()
    online = tta.online(model, "source")
    reference = trained("bn")
    for x in stream:
        assert torch.equal(online(x), reference(x).detach())
    assert not any(m.training for m in model.modules())
    assert not any(p.requires_grad for p in model.parameters())
    assert online.optimizer is None
    assert online.last.loss is None
    assert online.last.reliable is None


def test_source_after_a_method_with_batch_statistics_uses_running_ones(trained, stream):
    model = trained("bn")
    adapting = tta.online(model, "bn_stats")
    assert not torch.equal(adapting(stream[0]), trained("bn")(stream[0]))
    assert torch.equal(tta.online(model, "source")(stream[0]), trained("bn")(stream[0]).detach())
