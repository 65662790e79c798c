"""The loss of experts, against the authors' code and against closed forms."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tta.errors import InputError
from tta.functional import agreement, prior_offsets, rank_reversed, shot_groups, skill_diverse_loss

COUNTS = torch.tensor([50, 5, 20, 1])


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    stored = np.load(Path(__file__).parent / "parity" / "sade.npz")
    return {name: torch.from_numpy(np.asarray(stored[name])) for name in stored.files}


@pytest.mark.parametrize("tau", [0.5, 1, 2, 3])
def test_loss_is_that_of_the_published_code(published: dict[str, Tensor], tau: float) -> None:
    offsets = prior_offsets(published["class_counts"], tau=tau)
    loss = skill_diverse_loss(published["expert_logits"], published["targets"], offsets)
    assert loss == pytest.approx(float(published[f"loss_tau_{tau:g}"]), abs=1e-6)


def test_loss_is_that_of_the_published_code_where_classes_are_not_sorted(published: dict[str, Tensor]) -> None:
    offsets = prior_offsets(published["class_counts_shuffled"], tau=2)
    loss = skill_diverse_loss(published["expert_logits"], published["targets"], offsets)
    assert loss == pytest.approx(float(published["loss_shuffled_tau_2"]), abs=1e-6)


def test_ranks_are_reversed_not_inverted() -> None:
    assert rank_reversed(COUNTS.double()).tolist() == [1, 20, 5, 50]
    assert sorted(rank_reversed(torch.tensor([0.2, 0.2, 0.5, 0.1])).tolist()) == pytest.approx([0.1, 0.2, 0.2, 0.5])


def test_offsets_of_the_named_priors() -> None:
    source, uniform, inverse = prior_offsets(COUNTS, tau=2.0)
    assert source.tolist() == [0, 0, 0, 0]
    assert uniform.tolist() == pytest.approx([math.log(count / 76) for count in (50, 5, 20, 1)], abs=1e-6)
    expected = [math.log(a / 76) - 2 * math.log(b / 76) for a, b in zip((50, 5, 20, 1), (1, 20, 5, 50), strict=True)]
    assert inverse.tolist() == pytest.approx(expected, abs=1e-5)


def test_a_prior_of_numbers_is_the_named_one_where_they_agree() -> None:
    offsets = prior_offsets(COUNTS, ["source", [50 / 76, 5 / 76, 20 / 76, 1 / 76], "uniform", [0.25] * 4])
    assert torch.allclose(offsets[0], offsets[1])
    assert torch.allclose(offsets[2] - offsets[2].mean(), offsets[3] - offsets[3].mean())


@pytest.mark.parametrize("priors", [["uniform"], ["inverse", "source", "uniform", "source", "inverse"]])
def test_loss_is_the_sum_over_any_number_of_experts(priors: list[str]) -> None:
    logits, targets = torch.randn(6, len(priors), 4), torch.tensor([0, 1, 2, 3, 0, 0])
    offsets = prior_offsets(COUNTS, priors, tau=1.0).float()
    by_hand = sum(F.cross_entropy(logits[:, e] + offsets[e], targets) for e in range(len(priors)))
    assert skill_diverse_loss(logits, targets, offsets) == pytest.approx(float(by_hand))


def test_offset_makes_plain_logits_suit_the_target_prior() -> None:
    """Without features, the best balanced-softmax logits are equal for all classes: the uniform prior."""
    targets = torch.repeat_interleave(torch.arange(4), COUNTS)
    logits = torch.zeros(1, 3, 4, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = skill_diverse_loss(logits.expand(len(targets), 3, 4), targets, prior_offsets(COUNTS, tau=1.0))
        loss.backward()
        return loss

    optimizer.step(closure)
    source, uniform, inverse = logits.detach()[0].softmax(dim=1)
    assert torch.allclose(source, COUNTS / 76, atol=1e-3)
    assert torch.allclose(uniform, torch.full((4,), 0.25), atol=1e-3)
    assert torch.allclose(inverse, torch.tensor([1, 20, 5, 50]) / 76, atol=1e-3)


@pytest.mark.parametrize(
    ("priors", "message"),
    [
        (["reverse"], "target prior 'reverse': choose source, uniform, inverse"),
        ([[0.5, 0.5]], "a target prior of 2 numbers with sum 1: give 4 probabilities"),
        ([[0.5, 0.5, 0.5, -0.5]], "that sum to 1"),
        ([[math.nan, 0.5, 0.5, 0.0]], "with sum nan"),
    ],
)
def test_other_priors_are_refused(priors: list[str | list[float]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prior_offsets(COUNTS, priors)


def test_other_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="tau=-1"):
        prior_offsets(COUNTS, tau=-1.0)
    with pytest.raises(InputError, match="class_counts"):
        prior_offsets(torch.tensor([3, -1]))
    with pytest.raises(InputError, match="do not fit 3 target priors of 4 classes"):
        skill_diverse_loss(torch.zeros(2, 2, 4), torch.zeros(2, dtype=torch.long), prior_offsets(COUNTS))


def test_groups_by_thirds_and_by_thresholds() -> None:
    thirds = {name: classes.tolist() for name, classes in shot_groups(COUNTS).items()}
    assert thirds == {"many": [0, 2], "medium": [1], "few": [3]}
    bounded = {name: classes.tolist() for name, classes in shot_groups(COUNTS, (5, 20)).items()}
    assert bounded == {"many": [0], "medium": [1, 2], "few": [3]}
    assert list(shot_groups(torch.tensor([300, 200, 101]), (20, 100))) == ["many"]


def test_agreement_is_the_cosine_of_probabilities() -> None:
    first = torch.tensor([[0.0, 0.0], [100.0, 0.0]])
    second = torch.tensor([[math.log(3), 0.0], [0.0, 100.0]])
    cosine = (0.5 * 0.75 + 0.5 * 0.25) / math.sqrt(0.5 * (0.75**2 + 0.25**2))
    assert agreement(first, second) == pytest.approx(cosine / 2, abs=1e-6)
    assert agreement(first, first) == pytest.approx(1.0)
