import math

import torch

from tta.functional import information_maximization_loss


def test_certain_and_diverse_predictions_are_the_minimum():
    certain = 50 * torch.eye(4)
    assert abs(float(information_maximization_loss(certain)) + math.log(4)) < 1e-4
    assert abs(float(information_maximization_loss(certain[[1, 1, 1]]))) < 1e-4
    assert abs(float(information_maximization_loss(torch.zeros(5, 4)))) < 1e-4


def test_value_of_plain_sums():
    logits = torch.randn(5, 3, dtype=torch.float64)
    p = logits.softmax(dim=1).tolist()
    entropy = sum(-value * math.log(value) for row in p for value in row) / 5
    mean = [sum(row[k] for row in p) / 5 for k in range(3)]
    diversity = sum(value * math.log(value + 1e-5) for value in mean)
    assert abs(float(information_maximization_loss(logits)) - (entropy + diversity)) < 1e-5


def test_terms_of_one_or_of_identical_samples_cancel_and_so_do_their_gradients():
    for rows in (1, 6):
        logits = torch.randn(1, 5).repeat(rows, 1).requires_grad_()
        loss = information_maximization_loss(logits)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.detach().abs() < 1e-4
        assert gradient.abs().max() < 1e-4


def test_masked_classes_are_finite():
    logits = torch.randn(4, 3)
    logits[:, 1] = -math.inf
    logits.requires_grad_()
    loss = information_maximization_loss(logits)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
