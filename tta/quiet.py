"""Silence for what a user can do nothing about."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

DELIBERATE = (
    ".*in eval mode at the start of training.*",
    ".*returned `None`, this fit will run with no optimizer.*",
    ".*does not have many workers.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*smaller than the logging interval.*",
    ".*custom batch sampler.*",
    ".*Total length of `list` across ranks is zero.*",
)
"""Lightning's warnings about what runs do on purpose."""

FOREIGN = (".*set_vital.*", ".*isinstance\\(treespec, LeafSpec\\).*", ".*`isinstance\\(treespec.*")
"""Deprecations inside dependencies, between themselves."""

CHATTER = (
    "GPU available",
    "TPU available",
    "💡 Tip",
    "Seed set",
    "`Trainer.",
    "`weights_only`",
    "Restor",
    "Loaded model",
)
"""Beginnings of Lightning's messages that tell nothing about a run."""


class _WithoutChatter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(CHATTER)


@contextmanager
def quiet() -> Iterator[None]:
    """Within the context, drop warnings about deliberate choices and messages without news."""
    loggers = [
        logging.getLogger(name) for name in ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.seed")
    ]
    chatter = _WithoutChatter()
    with warnings.catch_warnings():
        for message in (*DELIBERATE, *FOREIGN):
            warnings.filterwarnings("ignore", message)
        for logger in loggers:
            logger.addFilter(chatter)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(chatter)
