import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassCalibrationError

from tta.monitor import StreamCalibration


def reference(probabilities: torch.Tensor, labels: torch.Tensor, bins: int) -> float:
    return float(MulticlassCalibrationError(probabilities.shape[1], n_bins=bins, norm="l1")(probabilities, labels))


def ours(probabilities: torch.Tensor, labels: torch.Tensor, bins: int, batch: int = 7) -> float:
    calibration = StreamCalibration(bins)
    for p, y in zip(probabilities.split(batch), labels.split(batch), strict=True):
        confidence, predicted = p.max(1)
        calibration.update(confidence, predicted == y)
    return calibration.compute()


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([5, 10, 15]), st.sampled_from([0.3, 2.0, 30.0]))
def test_equals_torchmetrics(seed, samples, bins, sharpness):
    """Also when predictions are so sharp that confidences are exactly 1."""
    generator = torch.Generator().manual_seed(seed)
    probabilities = (sharpness * torch.randn(samples, 4, generator=generator)).softmax(1)
    labels = torch.randint(4, (samples,), generator=generator)
    assert ours(probabilities, labels, bins) == pytest.approx(reference(probabilities, labels, bins), abs=1e-6)


@pytest.mark.parametrize("bins", [5, 10, 15])
def test_equals_torchmetrics_at_the_edges_of_bins(bins):
    """Edge, next number below and above, in two classes, right and wrong in turn."""
    edges = torch.linspace(0, 1, bins + 1)
    edges = edges[edges > 0.5]
    beside = [edges, torch.nextafter(edges, torch.zeros(())), torch.nextafter(edges, torch.ones(())).clamp(max=1)]
    for confidence in beside:
        probabilities = torch.stack([confidence, 1 - confidence], 1)
        labels = torch.arange(len(confidence)) % 2
        assert ours(probabilities, labels, bins) == pytest.approx(reference(probabilities, labels, bins), abs=1e-6)


def test_by_hand():
    calibration = StreamCalibration(10)
    calibration.update(torch.tensor([0.91, 0.93, 0.55, 0.58]), torch.tensor([True, False, False, False]))
    assert calibration.compute() == pytest.approx((abs(1.84 - 1) + abs(1.13 - 0)) / 4)


def test_before_the_first_sample_it_is_nan_and_memory_is_constant():
    calibration = StreamCalibration()
    assert math.isnan(calibration.compute())
    size = sum(buffer.numel() for buffer in calibration.buffers())
    for _ in range(20):
        calibration.update(torch.rand(100), torch.rand(100) < 0.5)
    assert sum(buffer.numel() for buffer in calibration.buffers()) == size
    assert calibration.count.sum() == 2000
