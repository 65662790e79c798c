"""Graphs built from a record against ordinary ones, over kinds of networks; what is played back and what is not."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tta.adapters import Select
from tta.functional import ForwardRecord
from tta.functional.forward_record import a_check, checking, played_back
from tta.monitor import CostMeter


class Attention(nn.Module):
    """Torch's own attention, whose projections are inside one composite function."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Linear(12, 8), nn.LayerNorm(8), nn.Linear(8, 5)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.embed(x))
        return self.head(self.attention(tokens, tokens, tokens)[0].mean(dim=1))


class Shared(nn.Module):
    """One grouped convolution used three times."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.norm, self.head = nn.GroupNorm(2, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = x + self.conv(self.norm(x)).tanh()
        return self.head(x.mean(dim=(2, 3)))


class TokensFirst(nn.Module):
    """Tokens before samples, so that the first dimension of a linear layer is not the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix, self.head = nn.LayerNorm(12), nn.Linear(12, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.norm(x).transpose(0, 1)).mean(dim=0))


def in_place() -> nn.Module:
    """Activations that write into the outputs of convolutions."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, bias=False),
        nn.ReLU(inplace=True),
        nn.GroupNorm(2, 8),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


def one_dimensional() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(4, 6, 3), nn.GroupNorm(2, 6), nn.Conv1d(6, 6, 3, padding=1), nn.Flatten(), nn.Linear(60, 5)
    )


def swin() -> nn.Module:
    """Windows before samples in its attention."""
    name = "swin_tiny_patch4_window7_224"
    return timm.create_model(
        name, img_size=32, window_size=4, embed_dim=24, depths=(2, 2), num_heads=(2, 2), num_classes=5
    )


IMAGE = (3, 32, 32)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], bool]] = {
    "vit": (lambda: timm.create_model("test_vit", img_size=32, patch_size=8, num_classes=5), IMAGE, True),
    "convnext": (lambda: timm.create_model("test_convnext", num_classes=5), IMAGE, True),
    "resnet": (lambda: timm.create_model("resnet26", norm_layer="groupnorm", num_classes=5), IMAGE, True),
    "one-dimensional": (one_dimensional, (4, 12), True),
    "shared weights": (Shared, (3, 6, 6), True),
    "swin": (swin, IMAGE, False),
    "in place": (in_place, (3, 12, 12), False),
    "composite attention": (Attention, (4, 12), False),
    "tokens first": (TokensFirst, (4, 12), False),
}
"""Maker, shape of an image, and whether all frozen layers can be played back."""


@pytest.fixture(params=NETWORKS)
def network(request) -> tuple[nn.Module, Tensor, bool]:
    make, shape, complete = NETWORKS[request.param]
    model = make().eval()
    Select().freeze_rest(model)
    return model, torch.rand(6, *shape), complete


def gradients(model: nn.Module, logits: Tensor) -> list[Tensor]:
    trained = [p for p in model.parameters() if p.requires_grad]
    loss = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
    return list(torch.autograd.grad(loss, trained))


CHOSEN = torch.tensor([False, True, True, False, False, True])


@pytest.fixture(params=[2, 16], ids=["in chunks", "at once"])
def _chunk(request, monkeypatch) -> None:
    monkeypatch.setattr("tta.functional.chunks.CHUNK", request.param)
    monkeypatch.setattr("tta.functional.chunks.CHUNK_VALUES", 1)


@pytest.mark.usefixtures("_chunk")
@pytest.mark.parametrize(
    "chosen", [CHOSEN, torch.arange(6) == 2, torch.ones(6, dtype=torch.bool)], ids=["3", "1", "all"]
)
def test_gradients_are_those_of_an_ordinary_pass(network, chosen):
    model, x, complete = network
    record = ForwardRecord(model, x)
    ordinary = model(x)
    assert torch.equal(record.logits, ordinary.detach())
    assert not record.logits.requires_grad
    logits = record.graph(chosen)
    torch.testing.assert_close(logits, ordinary[chosen], rtol=1e-5, atol=1e-6)
    for played, plain in zip(gradients(model, logits), gradients(model, ordinary[chosen]), strict=True):
        torch.testing.assert_close(played, plain, rtol=1e-4, atol=1e-4 * float(plain.abs().max()) + 1e-9)
    assert record.complete == complete


@pytest.mark.usefixtures("_chunk")
def test_second_graph_is_of_the_parameters_as_they_are_now(network):
    model, x, _ = network
    record = ForwardRecord(model, x)
    record.graph(CHOSEN)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * parameter.requires_grad
    logits = record.graph(CHOSEN)
    ordinary = model(x[CHOSEN])
    torch.testing.assert_close(logits, ordinary, rtol=1e-5, atol=1e-6)
    for played, plain in zip(gradients(model, logits), gradients(model, ordinary), strict=True):
        torch.testing.assert_close(played, plain, rtol=1e-4, atol=1e-4 * float(plain.abs().max()) + 1e-9)
    assert not record.complete


def test_trained_layers_are_computed_with_their_own_gradients():
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    model.requires_grad_(False)
    model[0].requires_grad_(True)
    model[2].bias.requires_grad_(True)
    x = torch.rand(6, 4)
    logits = ForwardRecord(model, x).graph(CHOSEN)
    for played, plain in zip(gradients(model, logits), gradients(model, model(x[CHOSEN])), strict=True):
        torch.testing.assert_close(played, plain)


def test_autocast_gives_the_gradients_of_an_ordinary_pass_under_autocast():
    model, x = timm.create_model("test_vit", img_size=32, patch_size=8, num_classes=5).eval(), torch.rand(6, *IMAGE)
    Select().freeze_rest(model)
    with torch.autocast("cpu", torch.bfloat16):
        record = ForwardRecord(model, x)
        played, plain = gradients(model, record.graph(CHOSEN)), gradients(model, model(x[CHOSEN]))
    assert record.complete
    assert record.logits.dtype == torch.bfloat16
    for one, other in zip(played, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05 * float(other.abs().max()))


def test_no_frozen_layer_is_computed_twice():
    """Counted below autograd: one product per layer and image forward, and one backward per chosen image."""
    model, x = timm.create_model("test_vit", img_size=32, patch_size=8, num_classes=5).eval(), torch.rand(6, *IMAGE)
    Select().freeze_rest(model)

    def products(action: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter:
            action()
        counts = counter.get_flop_counts().get("Global", {})
        return sum(count for operator, count in counts.items() if "scaled_dot" not in str(operator))

    record: list[ForwardRecord] = []
    forward = products(lambda: record.append(ForwardRecord(model, x)))
    graph: list[Tensor] = []
    assert products(lambda: graph.append(record[0].graph(CHOSEN))) == 0
    backward = products(lambda: gradients(model, graph[0]))
    whole = products(lambda: gradients(model, model(x)))
    assert forward + 2 * backward == whole, "half of the images are chosen"


def test_cost_meter_counts_the_record_once_and_the_second_pass():
    model, x = timm.create_model("test_vit", img_size=32, patch_size=8, num_classes=5).eval(), torch.rand(6, *IMAGE)
    Select().freeze_rest(model)
    meter = CostMeter(model)
    record = ForwardRecord(model, x)
    gradients(model, record.graph(CHOSEN))
    assert (meter.forwards, meter.backwards) == (6, 3)
    gradients(model, record.graph(CHOSEN))
    assert (meter.forwards, meter.backwards) == (9, 6)
    with a_check():
        gradients(model, model(x))
    assert (meter.forwards, meter.backwards) == (9, 6)
    assert not checking()


def test_graph_that_could_not_be_played_back_counts_as_a_pass():
    model, x = in_place(), torch.rand(6, 3, 12, 12)
    Select().freeze_rest(model)
    meter = CostMeter(model)
    ForwardRecord(model, x).graph(CHOSEN)
    assert meter.forwards == 9


def test_an_error_in_the_model_leaves_functions_as_they_were():
    model = nn.Sequential(nn.Linear(4, 3), nn.Unflatten(1, (7, 7)))
    with pytest.raises(RuntimeError):
        ForwardRecord(model, torch.rand(2, 4))
    layer = nn.Linear(4, 3)
    assert layer(torch.rand(2, 4)).requires_grad
    assert not played_back()


def test_layers_whose_weights_are_computed_are_not_played_back():
    """Two tensors that come and go may have the same identity: only parameters are kept apart by it."""
    model = nn.Sequential(nn.Conv1d(4, 6, 3), nn.GroupNorm(2, 6), nn.Conv1d(6, 6, 3, padding=1), nn.Flatten())
    model.append(nn.Linear(60, 5))
    for layer in (0, 2):
        nn.utils.parametrizations.weight_norm(model[layer])
    Select().freeze_rest(model)
    x = torch.rand(6, 4, 12)
    record = ForwardRecord(model, x)
    logits = record.graph(CHOSEN)
    torch.testing.assert_close(logits, model(x)[CHOSEN])
    for played, plain in zip(gradients(model, logits), gradients(model, model(x[CHOSEN])), strict=True):
        torch.testing.assert_close(played, plain)
    assert not record.complete
