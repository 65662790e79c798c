import pytest
import torch
from torch import nn

from tta.errors import InputError
from tta.functional import fisher_information, fisher_penalty


def test_logistic_regression_in_closed_form():
    """d CE / d bias = p - onehot(argmax), averaged over the batch, squared, averaged over batches."""
    model = nn.Linear(4, 3)
    batches = list(torch.randn(3, 6, 4))
    total = torch.zeros(3)
    for x in batches:
        p = model(x).softmax(1).detach()
        total += (p - torch.eye(3)[p.argmax(1)]).mean(0) ** 2
    torch.testing.assert_close(fisher_information(model, [model.bias], batches), total / 3)


def test_order_shape_and_untouched_gradients():
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    batches = list(torch.randn(2, 6, 4))
    chosen = [model[1].bias, model[0].weight]
    with torch.no_grad():
        fisher = fisher_information(model, chosen, iter(batches))
    assert fisher.shape == (3 + 20,)
    assert (fisher >= 0).all()
    torch.testing.assert_close(fisher[:3], fisher_information(model, [model[1].bias], batches))
    torch.testing.assert_close(fisher[3:], fisher_information(model, [model[0].weight], batches))
    assert all(p.grad is None for p in model.parameters())


def test_squares_are_of_the_batch_gradient_and_so_shrink_with_the_batch():
    model = nn.Linear(4, 3)
    x = torch.randn(64, 4)
    single = fisher_information(model, [model.weight], x.split(1)).sum()
    batched = fisher_information(model, [model.weight], x.split(64)).sum()
    assert batched < 0.5 * single


def test_no_batch_is_an_error():
    model = nn.Linear(4, 3)
    with pytest.raises(InputError, match="at least one"):
        fisher_information(model, [model.weight], [])


def test_penalty_value_and_gradient():
    first, second = nn.Parameter(torch.tensor([[1.0, 2.0]])), nn.Parameter(torch.tensor([3.0]))
    fisher, anchor = torch.tensor([0.5, 2.0, 1.0]), torch.tensor([0.0, 1.0, 5.0])
    penalty = fisher_penalty([first, second], fisher, anchor)
    assert penalty.item() == pytest.approx(0.5 * 1 + 2.0 * 1 + 1.0 * 4)
    penalty.backward()
    assert first.grad.tolist() == [[1.0, 4.0]]
    assert second.grad.tolist() == [-4.0]
