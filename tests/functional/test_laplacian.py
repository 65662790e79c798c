"""Affinities and the fixed point of LAME against plain loops."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tta.functional import knn_affinity, laplacian_adjusted, linear_affinity, rbf_affinity


def unit_rows(features: Tensor) -> list[list[float]]:
    rows = features.double().tolist()
    return [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in rows]


def distances(features: Tensor) -> list[list[float]]:
    rows = unit_rows(features)
    return [[math.dist(a, b) for b in rows] for a in rows]


def plain_rbf(features: Tensor, neighbours: int) -> list[list[float]]:
    table = distances(features)
    # Sorted, the first of every row is the sample itself, at distance 0: it counts as the first.
    widths = [sorted(row)[neighbours - 1] for row in table]
    width = sum(widths) / len(widths)
    return [[math.exp(-d * d / (2 * width * width)) for d in row] for row in table]


def plain_knn(features: Tensor, neighbours: int) -> list[list[float]]:
    table = distances(features)
    result = []
    for i, row in enumerate(table):
        others = sorted((d, j) for j, d in enumerate(row) if j != i)[:neighbours]
        chosen = {j for _, j in others}
        result.append([float(j in chosen) for j in range(len(row))])
    return result


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    exponentials = [math.exp(value - top) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def plain_fixed_point(probabilities: Tensor, affinity: list[list[float]], steps: int) -> list[list[float]]:
    unary = [[-math.log(p + 1e-10) for p in row] for row in probabilities.double().tolist()]
    assigned = [softmax([-u for u in row]) for row in unary]
    for _ in range(steps):
        pulled = [
            [sum(w * other[k] for w, other in zip(weights, assigned, strict=True)) for k in range(len(assigned[0]))]
            for weights in affinity
        ]
        assigned = [
            softmax([pull - u for pull, u in zip(pulls, row, strict=True)])
            for pulls, row in zip(pulled, unary, strict=True)
        ]
    return assigned


@pytest.fixture
def features() -> Tensor:
    return torch.randn(9, 4)


@pytest.fixture
def probabilities() -> Tensor:
    return (2 * torch.randn(9, 3)).softmax(dim=1)


@pytest.mark.parametrize("neighbours", [2, 5, 9])
def test_rbf_affinity_counts_the_sample_itself_as_its_first_neighbour(features, neighbours):
    expected = torch.tensor(plain_rbf(features, neighbours))
    torch.testing.assert_close(rbf_affinity(features, neighbours), expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(rbf_affinity(features, neighbours - 1), expected, atol=1e-3)


def test_rbf_affinity_with_fewer_samples_than_neighbours_takes_the_farthest(features):
    assert torch.equal(rbf_affinity(features, 50), rbf_affinity(features, 9))


def test_rbf_affinity_of_two_samples_by_hand():
    """At a right angle their distance is sqrt 2, and the width, with two neighbours, too."""
    affinity = rbf_affinity(torch.tensor([[3.0, 0.0], [0.0, 0.5]]), 2)
    torch.testing.assert_close(affinity, torch.tensor([[1.0, math.exp(-0.5)], [math.exp(-0.5), 1.0]]))


@pytest.mark.parametrize("features", [torch.ones(1, 4), torch.ones(6, 4), torch.zeros(6, 4)], ids=["one", "same", "0"])
def test_rbf_affinity_without_a_scale_is_zero(features):
    assert torch.equal(rbf_affinity(features, 5), torch.zeros(len(features), len(features)))


@pytest.mark.parametrize("angle", [1e-30, 1e-7, 1e-6])
def test_rbf_affinity_takes_features_that_rounding_tells_apart_for_equal(angle):
    features = torch.tensor([[1.0, 0.0], [1.0, angle], [1.0, 2 * angle]])
    assert torch.equal(rbf_affinity(features, 2), torch.zeros(3, 3))
    torch.testing.assert_close(
        rbf_affinity(torch.tensor([[1.0, 0.0], [1.0, 1e-3]]), 2), rbf_affinity(torch.eye(2), 2), rtol=1e-3, atol=0.0
    )


@pytest.mark.parametrize("neighbours", [1, 3, 8])
def test_knn_affinity_leaves_the_sample_itself_out(features, neighbours):
    affinity = knn_affinity(features, neighbours)
    assert torch.equal(affinity, torch.tensor(plain_knn(features, neighbours)))
    assert torch.equal(affinity.diagonal(), torch.zeros(9))
    assert torch.equal(affinity.sum(dim=1), torch.full((9,), float(neighbours)))


def test_knn_affinity_of_few_or_equal_samples():
    assert torch.equal(knn_affinity(torch.ones(1, 4), 5), torch.zeros(1, 1))
    assert torch.equal(knn_affinity(torch.ones(3, 4), 5), 1 - torch.eye(3))
    expected = torch.tensor([[0.0, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]])
    assert torch.equal(knn_affinity(torch.ones(4, 2), 1), expected)


def test_linear_affinity_is_the_cosine(features):
    rows = torch.tensor(unit_rows(features))
    torch.testing.assert_close(linear_affinity(features), rows @ rows.T)


@pytest.mark.parametrize("kernel", [(rbf_affinity, plain_rbf, 5), (knn_affinity, plain_knn, 3)], ids=["rbf", "knn"])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_first_iterations_are_those_of_plain_loops(features, probabilities, kernel, steps):
    fast, plain, neighbours = kernel
    got = laplacian_adjusted(probabilities, fast(features, neighbours), max_steps=steps, tolerance=0.0)
    expected = torch.tensor(plain_fixed_point(probabilities, plain(features, neighbours), steps))
    torch.testing.assert_close(got.softmax(dim=1), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got.exp(), expected, rtol=1e-4, atol=1e-6)
    assert (expected - probabilities).abs().max() > 0.05


def test_iteration_ends_in_a_fixed_point_and_not_before_the_third(features, probabilities):
    affinity = rbf_affinity(features, 5)
    settled = laplacian_adjusted(probabilities, affinity)
    again = ((probabilities + 1e-10).log() + affinity @ settled.exp()).log_softmax(dim=1)
    torch.testing.assert_close(again, settled, rtol=1e-4, atol=1e-4)
    assert torch.equal(
        laplacian_adjusted(probabilities, affinity, tolerance=1e9),
        laplacian_adjusted(probabilities, affinity, max_steps=3, tolerance=0.0),
    )


def test_no_step_raises_the_objective_for_a_positive_definite_affinity(features, probabilities):
    affinity = linear_affinity(features)
    values = []
    for steps in range(1, 12):
        y = laplacian_adjusted(probabilities, affinity, max_steps=steps, tolerance=0.0).exp()
        values.append(float((y * (y / probabilities).log()).sum() - 0.5 * (y * (affinity @ y)).sum()))
    assert values[0] - values[-1] > 1e-3
    assert all(later <= earlier + 1e-5 for earlier, later in pairwise(values))


def test_without_affinity_the_predictions_come_back(probabilities):
    got = laplacian_adjusted(probabilities, torch.zeros(9, 9))
    torch.testing.assert_close(got.softmax(dim=1), probabilities)


def test_certain_predictions_give_finite_logarithms():
    probabilities = torch.eye(3).repeat(20, 1)
    got = laplacian_adjusted(probabilities, torch.ones(60, 60))
    assert torch.isfinite(got).all()
    assert got.min() < math.log(1e-10) + 1
