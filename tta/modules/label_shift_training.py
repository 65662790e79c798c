"""Training of the label-shift adapter's network, on the features of a frozen source classifier."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from tta.adapters.head import linear_head
from tta.adapters.label_shift_network import KIND, LabelShiftNetwork
from tta.adapters.label_shift_source import SourceFigures
from tta.companion import Companion
from tta.errors import InputError
from tta.functional.label_shift import class_prior, generalized_logit_adjusted_loss, inverse_prior
from tta.modules.prior_draws import Drawn, draw_with_priors
from tta.modules.sharding import check_whole_parameters
from tta.modules.source_calibration import calibrate
from tta.modules.weights import load_weights

PRIORS = ("source", "uniform", "inverse")
"""The priors that the network is trained for."""


class LabelShiftTraining(LightningModule):
    r"""Train a :class:`~tta.adapters.LabelShiftNetwork`, and measure what its use needs of the source.

    Backbone and head are frozen. Training images go through the backbone before the first step, and the features that
    enter its head are kept, so that training takes seconds whatever the backbone. A step is one of Adam, on a random
    batch of features, for one of the three priors (source, uniform, inverse) in turn, with the generalised logit
    adjusted loss. An epoch is ``epoch_steps`` steps: with 100, ``trainer.max_epochs=30`` makes 3000.

    ``statistics`` says under which normalisation statistics features are made. ``source`` is what is published: one
    pass, all in eval mode. But methods that adapt BatchNorm networks use the statistics of each batch, and these
    follow the classes in it: features of a class move when the prior does. With ``batch`` the images (held in memory)
    are drawn with each of the three priors, rare ones several times, and go through in batches of ``image_batch`` under
    their own statistics, so that the network learns from what it will be shown. On networks without BatchNorm the two
    differ by the draw alone.

    Several processes all take every step on all features, so that the result is that of one; nothing is gained.

    Features of the training images are easier than those of others, above all for rare classes, which the source has
    learnt by heart; a network trained on them corrects too little. ``noise`` makes up for it.

    After training, held-out source images give a calibration and a confusion matrix, for the raw head and for the head
    for the uniform prior. They are drawn with each of the three priors, so any class proportions will do, but each
    class must be among them. Validation logs loss and accuracy on the same draws, per prior: what to choose
    hyper-parameters by.

    Args:
        backbone: Classifier with a linear head, images ``(B, C, H, W)`` in ``[0, 1]`` to logits ``(B, K)``.
        weights: File with source weights. Without it the backbone is taken as it is.
        num_classes: Number of classes; taken from the data by the command line.
        class_counts: Training images of each class; the data module's ``class_counts`` if ``None``.
        hidden: Width of the network's hidden layer.
        form: Form of the change of the weight: ``full``, ``low_rank`` or ``per_class_scale``.
        rank: Rank of ``low_rank``.
        degree: Map from a prior to its degree of imbalance: ``log_slope`` or ``linear``.
        head: Name of the head's layer; the last linear layer if ``None``.
        taus: Strength of the logit adjustment for the source, uniform and inverse prior. 0, 1 and 2 are those under
            which Bayes' rule makes the logits right for priors proportional to ``source^1``, ``source^0``,
            ``source^-1``. The published values are not known.
        lr: Learning rate of Adam, above 0. Not known either.
        batch_size: Features per step, at least 1.
        epoch_steps: Steps of an epoch, at least 1.
        statistics: ``source`` or ``batch``, see above.
        image_batch: Images per batch under ``batch``, at least 2; as the stream's.
        noise: Standard deviation of the noise added to each feature, as a share of its own, at least 0.
        seed: Non-negative seed of draws and noise. The network's first layer starts from the global generator, as
            backbones do.

    Raises:
        InputError: If weights do not fit, class counts are missing or hold a zero, or an argument is out of range.

    References:
        Label Shift Adapter for Test-Time Adaptation under Covariate and Label Shifts, ICCV 2023, figure 3,
        https://arxiv.org/abs/2308.08810: the stages, the three priors, the loss with a tau per prior. No code was
        published; everything else is argued above. ``statistics="source", noise=0, form="full"`` departs least.
    """

    def __init__(
        self,
        backbone: nn.Module,
        weights: str | None = None,
        num_classes: int = 1000,
        class_counts: Sequence[float] | None = None,
        hidden: int = 100,
        form: Literal["full", "low_rank", "per_class_scale"] = "full",
        rank: int = 4,
        degree: str = "log_slope",
        head: str | None = None,
        taus: Sequence[float] = (0.0, 1.0, 2.0),
        lr: float = 1e-3,
        batch_size: int = 128,
        epoch_steps: int = 100,
        statistics: Literal["source", "batch"] = "source",
        image_batch: int = 64,
        noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if len(taus) != len(PRIORS):
            raise InputError(f"taus has {len(taus)} numbers: give one for each of {', '.join(PRIORS)}")
        if min(batch_size, epoch_steps) < 1 or image_batch < 2 or seed < 0 or not lr > 0.0 or not noise >= 0.0:
            raise InputError(
                f"batch_size={batch_size}, epoch_steps={epoch_steps}, image_batch={image_batch}, lr={lr}, "
                f"noise={noise}, seed={seed}: need the first two >= 1, image_batch >= 2, lr > 0, the others >= 0"
            )
        if statistics not in ("source", "batch"):
            raise InputError(f"statistics={statistics!r}: choose from source, batch")
        if weights is not None:
            load_weights(backbone, weights)
        self.backbone = backbone.requires_grad_(False)
        self.num_classes, self.class_counts = num_classes, class_counts
        self.network = LabelShiftNetwork(
            linear_head(backbone, head).in_features, [1.0] * num_classes, hidden, form, rank, degree, head
        )
        self.taus, self.lr, self.batch_size, self.epoch_steps = tuple(taus), lr, batch_size, epoch_steps
        self.statistics, self.image_batch, self.noise, self.seed = statistics, image_batch, noise, seed
        self.training_draws: list[Drawn] = []
        self.heldout_draws: list[Drawn] = []
        self._image_loaders: tuple[Any, Any] | None = None

    @property
    def layer(self) -> nn.Linear:
        """The head of the backbone."""
        return linear_head(self.backbone, self.network.head)

    # ---- data ----------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Take the class counts, and steps over features in place of steps over images.

        Raises:
            InputError: If class counts are missing, or do not fit the classes.
        """
        check_whole_parameters(self.trainer, "LabelShiftTraining", "trains a small network beside the classifier")
        self._data: Any = getattr(self.trainer, "datamodule", None)
        counts = self.class_counts if self.class_counts is not None else getattr(self._data, "class_counts", None)
        if self._data is None or counts is None:
            raise InputError(
                f"{type(self._data).__name__} has no class_counts: train with a data module that has, or give "
                "class_counts, the number of training images of each class"
            )
        if len(counts) != self.num_classes or self.layer.out_features != self.num_classes:
            raise InputError(
                f"{len(counts)} class counts, {self.layer.out_features} outputs of the backbone's head and "
                f"{self.num_classes} classes of the data: give as many class_counts as there are classes, and a "
                "backbone trained for these"
            )
        self.network.source_prior.copy_(class_prior(counts, "class_counts"))
        self._image_loaders = self._data.train_dataloader, self._data.val_dataloader
        # The trainer's epochs are over features: what it loads are numbers of steps.
        self._data.train_dataloader = lambda: _numbers(self.epoch_steps)
        self._data.val_dataloader = lambda: _numbers(1)

    def teardown(self, stage: str) -> None:
        """Give the data module its loaders back."""
        if self._image_loaders is not None:
            self._data.train_dataloader, self._data.val_dataloader = self._image_loaders
            self._image_loaders = None

    def configure_callbacks(self) -> list[Callback]:
        """One that gives the loaders back when training is cut short, where the trainer calls no teardown."""
        return [_GivesLoadersBack()]

    def on_fit_start(self) -> None:
        """Make the features, once: every process all of them, of the images as they are in the first epoch."""
        trainer, self._data.trainer = self._data.trainer, None
        train_loader, heldout_loader = (loader() for loader in cast(tuple[Any, Any], self._image_loaders))
        self._data.trainer = trainer
        self.training_draws = self._draws(train_loader, self.seed)
        self.heldout_draws = self._draws(heldout_loader, self.seed + 1)
        self.train()

    def train(self, mode: bool = True) -> "LabelShiftTraining":
        """Keep the backbone in eval mode; the network has no modes."""
        super().train(mode)
        self.backbone.eval()
        return self

    def priors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Source, uniform and inverse prior, each of shape ``(C,)``."""
        source = self.network.source_prior
        return source, torch.full_like(source, 1 / len(source)), inverse_prior(source)

    def _draws(self, loader: Iterable[Mapping[str, Tensor]], seed: int) -> list[Drawn]:
        size = self.image_batch if self.statistics == "batch" else None
        return draw_with_priors(self.backbone, self.layer, loader, self.priors(), seed, size)

    # ---- steps over features -------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ANN401  the number of a step
        """Loss of a batch of features for the prior whose turn it is; all random is decided by seed and step."""
        number = self.global_step
        which = number % len(PRIORS)
        draw = self.training_draws[which]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        rows = torch.randint(len(draw.labels), (self.batch_size,), generator=generator).to(self.device)
        features = draw.features[rows]
        if self.noise > 0.0:
            drawn = torch.randn(features.shape, generator=generator).to(self.device)
            features = features + self.noise * draw.features.std(dim=0) * drawn
        loss = self._loss(which, features, draw.labels[rows], draw.prior)
        self.log(f"train/loss_{PRIORS[which]}", loss, batch_size=self.batch_size)
        return loss

    def _loss(self, which: int, features: Tensor, labels: Tensor, prior: Tensor) -> Tensor:
        logits = self.network(prior, self.layer).logits(self.layer, features)
        return generalized_logit_adjusted_loss(logits, labels, self.network.source_prior, self.taus[which], prior)

    def validation_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ANN401  the number of a step
        """Loss and accuracy on the held-out draws, per prior."""
        for which, draw in enumerate(self.heldout_draws):
            logits = self.network(draw.prior, self.layer).logits(self.layer, draw.features)
            accuracy = (logits.argmax(dim=1) == draw.labels).float().mean()
            self.log(f"val/accuracy_{PRIORS[which]}", accuracy, prog_bar=True, batch_size=1, sync_dist=True)
            loss = self._loss(which, draw.features, draw.labels, draw.prior)
            self.log(f"val/loss_{PRIORS[which]}", loss, batch_size=1, sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over the network's parameters alone."""
        return torch.optim.Adam(self.network.parameters(), lr=self.lr)

    # ---- the product ---------------------------------------------------------------------------------------------

    def companion(self) -> Companion:
        """The trained network with calibration and confusion of both heads.

        Raises:
            InputError: Before training, when no features have been made.
        """
        if not self.heldout_draws:
            raise InputError("no companion before training: fit first, with held-out images in the data module")
        tensors, settings = self.network.tensors(), {"network": self.network.settings()}
        plain = SourceFigures(Companion(KIND, tensors, settings), None)
        return Companion(KIND, {**tensors, **calibrate(plain, self.layer, self.heldout_draws)}, settings)


class _GivesLoadersBack(Callback):
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        pl_module.teardown("fit")


def _numbers(count: int) -> DataLoader[int]:
    numbers = cast(Dataset[int], range(count))
    # A sampler of its own, for one replica: the trainer must not share the numbers out, every process takes every step.
    return DataLoader(numbers, batch_size=None, sampler=DistributedSampler(numbers, 1, 0, shuffle=False))
