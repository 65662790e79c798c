import math

import pytest
import torch

from datamodules.corruptions.spatter import REACH, detect_edges, edge_distance


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("levels", ["32", "64", "224"])
def test_any_size_channels_and_levels(levels, channels, smooth_images, apply):
    images = smooth_images(2, channels, 9, 40)
    for severity in (0.5, 1, 2.5, 5):
        corrupted = apply(images, f"spatter:{severity}", levels)
        assert corrupted.shape == images.shape
        assert 0 <= corrupted.min() <= corrupted.max() <= 1


def test_water_lightens_and_mud_darkens(apply):
    images = torch.full((4, 3, 224, 224), 0.5)
    assert (apply(images, "spatter:3.4") >= images - 1e-6).all()
    assert (apply(images, "spatter:3.5") <= images + 1e-6).all()


def test_mud_is_brown_and_water_turquoise(apply):
    images = torch.full((4, 3, 224, 224), 0.3)
    mud, water = (apply(images, f"spatter:{severity}") - images for severity in (5, 2))
    assert mud[:, 0].mean() > mud[:, 1].mean() > mud[:, 2].mean()
    assert 0 < water[:, 0].mean() < water[:, 1].mean()
    assert torch.equal(water[:, 1], water[:, 2])


def test_most_of_the_image_stays_dry(apply):
    images = torch.full((4, 3, 224, 224), 0.5)
    for severity in (1, 5):
        touched = (apply(images, f"spatter:{severity}") - images).abs().amax(1) > 0.02
        assert 0.01 < touched.float().mean() < 0.5


def test_the_edge_of_a_square_is_found_and_nothing_else():
    levels = torch.zeros(1, 20, 20)
    levels[:, 5:15, 5:15] = 200
    edges = detect_edges(levels)[0]
    assert edges[5:15, 4:6].any(1)[1:-1].all()
    assert not edges[8:12, 8:12].any()
    assert not edges[:3].any()
    assert edges.sum() < 60


def test_weak_edges_count_where_they_continue_strong_ones():
    levels = torch.zeros(1, 30, 12)
    levels[:, :15, 6:] = 100
    levels[:, 15:, 6:] = 20  # Sobel: 80
    weak_alone = torch.zeros(1, 30, 12)
    weak_alone[:, :, 6:] = 20
    assert detect_edges(levels)[0, 20:, 4:8].any(1).all()
    assert not detect_edges(weak_alone).any()


def test_distance_is_euclidean_and_cut():
    edges = torch.zeros(1, 60, 60, dtype=torch.bool)
    edges[0, 10, 20] = edges[0, 40, 41] = True
    distance = edge_distance(edges)[0]
    for row, column in [(10, 20), (0, 0), (13, 24), (59, 5), (44, 38), (25, 30)]:
        exact = min(math.hypot(row - 10, column - 20), math.hypot(row - 40, column - 41))
        assert distance[row, column].item() == pytest.approx(min(exact, REACH), abs=1e-5)


def test_no_edges_are_far_away():
    assert (edge_distance(torch.zeros(2, 8, 8, dtype=torch.bool)) == REACH).all()
