"""Image sources to train on and streams to adapt to; batches are dictionaries of tensors, images in [0, 1]."""

from datamodules.base import SourceDataModule, StreamDataModule
from datamodules.corruptions import CORRUPTIONS, Domain, corrupt, generator_for
from datamodules.datasets import CorruptedDataset
from datamodules.digits import Digits, DigitsStream
from datamodules.image_folder import ImageFolderSource, ImageFolderStream
from datamodules.orders import ORDERS, Order, batches, make_order, shard

__all__ = [
    "CORRUPTIONS",
    "ORDERS",
    "CorruptedDataset",
    "Digits",
    "DigitsStream",
    "Domain",
    "ImageFolderSource",
    "ImageFolderStream",
    "Order",
    "SourceDataModule",
    "StreamDataModule",
    "batches",
    "corrupt",
    "generator_for",
    "make_order",
    "shard",
]
