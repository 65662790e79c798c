"""Image sources to train on and streams to adapt to; batches are dictionaries of tensors, images in [0, 1]."""

from datamodules.base import SourceDataModule
from datamodules.cifar import CIFARSource, CIFARStream
from datamodules.cifar_corrupted import CIFARCorrupted
from datamodules.corrupted_domains import CorruptedDomains
from datamodules.corrupted_stream import CorruptedStream
from datamodules.corruptions import CORRUPTIONS, LEVELS, Domain, corrupt, generator_for
from datamodules.covariate import CovariateSchedule, Drift, Gradual, Grid, Recurring, Segment, Sequential
from datamodules.digits import Digits, DigitsStream
from datamodules.domain_folders import DomainFolderSource, DomainFolderStream
from datamodules.domain_source import DomainSource
from datamodules.hugging_face import HuggingFaceSource, HuggingFaceStream
from datamodules.image_folder import ImageFolderSource, ImageFolderStream
from datamodules.imagenet import ImageNetC, ImageNetVariant
from datamodules.labels import (
    Dirichlet,
    ImbalanceRatio,
    LabelSchedule,
    LongTailed,
    Prior,
    PriorChange,
    Shuffled,
    Sorted,
)
from datamodules.orders import StreamPlan, make_plan, shard
from datamodules.rotated_digits import RotatedDigits, RotatedDigitsStream
from datamodules.stream import StreamDataModule

__all__ = [
    "CORRUPTIONS",
    "LEVELS",
    "CIFARCorrupted",
    "CIFARSource",
    "CIFARStream",
    "CorruptedDomains",
    "CorruptedStream",
    "CovariateSchedule",
    "Digits",
    "DigitsStream",
    "Dirichlet",
    "Domain",
    "DomainFolderSource",
    "DomainFolderStream",
    "DomainSource",
    "Drift",
    "Gradual",
    "Grid",
    "HuggingFaceSource",
    "HuggingFaceStream",
    "ImageFolderSource",
    "ImageFolderStream",
    "ImageNetC",
    "ImageNetVariant",
    "ImbalanceRatio",
    "LabelSchedule",
    "LongTailed",
    "Prior",
    "PriorChange",
    "Recurring",
    "RotatedDigits",
    "RotatedDigitsStream",
    "Segment",
    "Sequential",
    "Shuffled",
    "Sorted",
    "SourceDataModule",
    "StreamDataModule",
    "StreamPlan",
    "corrupt",
    "generator_for",
    "make_plan",
    "shard",
]
