import pytest
import torch
from torch import nn

from models import CifarResNet, ClassSubset
from tta.errors import InputError


class Thousand(nn.Module):
    """Logits 0, 1, ... 999 for every image."""

    def forward(self, x):
        return torch.arange(1000.0).repeat(len(x), 1)


def test_given_classes_are_kept_in_their_order():
    model = CifarResNet(8).eval()
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(ClassSubset(model, [7, 0, 3])(x), model(x)[:, [7, 0, 3]])


@pytest.mark.parametrize(
    ("subset", "first", "last"), [("imagenet_a", [6, 11, 13], 988), ("imagenet_r", [1, 2, 4], 988)]
)
def test_the_subsets_of_imagenet(subset, first, last):
    kept = ClassSubset(Thousand(), subset)(torch.rand(2, 3, 4, 4))
    assert kept.shape == (2, 200)
    assert kept[0, :3].tolist() == first
    assert kept[1, -1] == last
    assert (kept.diff() > 0).all()


def test_only_the_prefix_of_the_keys_is_new():
    model = CifarResNet(8)
    assert list(ClassSubset(model, [1, 2]).state_dict()) == [f"network.{key}" for key in model.state_dict()]


@pytest.mark.parametrize("subset", ["imagenet_c", [], [0, 0], [-1, 2]])
def test_subsets_that_do_not_exist(subset):
    with pytest.raises(InputError, match="subset: "):
        ClassSubset(Thousand(), subset)


def test_a_backbone_of_other_classes_is_refused():
    x = torch.rand(1, 3, 32, 32)
    with pytest.raises(InputError, match="backbone: it gives 10 logits, the subset needs 1000"):
        ClassSubset(CifarResNet(8).eval(), "imagenet_r")(x)
    with pytest.raises(InputError, match="at least 12"):
        ClassSubset(CifarResNet(8).eval(), [3, 11])(x)
