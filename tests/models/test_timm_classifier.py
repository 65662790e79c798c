import pytest
import timm
import torch
from torch import Tensor

from models import TimmClassifier
from tta.errors import InputError

SMALL = {"img_size": 32, "patch_size": 8}


def test_normalisation_of_the_network_is_inside():
    model = TimmClassifier("test_vit", num_classes=7, arguments=SMALL).eval()
    x = torch.rand(2, 3, 32, 32)
    config = model.network.pretrained_cfg
    shape = (1, 3, 1, 1)
    plain = (x - torch.tensor(config["mean"]).view(shape)) / torch.tensor(config["std"]).view(shape)
    assert model(x).shape == (2, 7)
    torch.testing.assert_close(model(x), model.network(plain))
    assert not torch.allclose(model(x), model.network(x))


def test_each_network_brings_its_own_normalisation():
    vit, resnet = "vit_tiny_patch16_224.augreg_in21k_ft_in1k", "resnet18.a1_in1k"
    with torch.device("meta"):
        means = [TimmClassifier(name).network.pretrained_cfg["mean"] for name in (vit, resnet)]
    assert means == [(0.5, 0.5, 0.5), (0.485, 0.456, 0.406)]


def test_normalisation_can_be_given():
    model = TimmClassifier("test_vit", num_classes=7, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.25), arguments=SMALL)
    assert model.normalize.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert model.normalize.std.flatten().tolist() == pytest.approx([0.5, 0.5, 0.25])


def test_keys_are_those_of_timm_with_a_prefix():
    model = TimmClassifier("test_resnet", num_classes=7)
    plain = timm.create_model("test_resnet", num_classes=7)
    assert list(model.state_dict()) == [f"network.{key}" for key in plain.state_dict()]


def test_unknown_name_gives_the_closest():
    with pytest.raises(
        InputError, match=r"unknown timm model 'resnet5': see timm.list_models\(\); did you mean .*resnet50"
    ):
        TimmClassifier("resnet5")


def test_weights_that_cannot_be_had_are_told_with_the_remedy(monkeypatch):
    def offline(name: str, pretrained: bool, **arguments: object) -> Tensor:
        raise OSError("no route to the hub\nlong trace")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError, match=r"cannot load timm's weights of 'resnet18' \(no route to the hub\)"):
        TimmClassifier("resnet18", pretrained=True)
    with pytest.raises(OSError, match="no route"):
        TimmClassifier("resnet18")
