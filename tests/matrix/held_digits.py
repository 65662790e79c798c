"""A stream that a test holds, so that it can do something in the middle of a run that nobody looks at."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from datamodules import DigitsStream
from tta.callbacks import Report


class HeldDigits(DigitsStream):
    """Digits of which the third batch waits as long as a file ``hold`` is there; if that says so, it kills the process.

    Args:
        hold: The file.
        **options: Arguments of the digits.
    """

    def __init__(self, hold: str, **options: Any) -> None:
        super().__init__(**options)
        self.hold = Path(hold)
        self.batches = 0

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.batches += 1
        while self.batches == 3 and self.hold.exists():
            if self.hold.read_text() == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.02)
        return batch


class NoReport(Report):
    """Nothing is drawn: that takes longer than a small run."""

    def on_train_end(self, *_: Any) -> None: ...
