"""What stopped a run, said in one line."""

import errno
from pathlib import Path
from traceback import extract_tb

from tta.errors import InputError
from tta.messages import one_line


def what_failed(error: Exception) -> str | None:
    """What stopped a run, in one line, if the user can do something about it.

    Args:
        error: What was raised.

    Returns:
        One line, or ``None`` for anything else.
    """
    if isinstance(error, InputError):
        # A loader's worker passes its error on with the whole traceback; what is wrong stands in the last line.
        return str(error).strip().rpartition("\n")[2].removeprefix(f"{InputError.__module__}.{InputError.__name__}: ")
    if isinstance(error, ValueError) and "Union subtypes" in str(error):
        # jsonargparse hides an InputError of a class inside one of its own where the class is optional.
        return one_line(str(error))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        place = f" {error.filename}" if error.filename else ""
        return f"cannot write{place} ({error.strerror}): make room, then go on with --ckpt_path last"
    if "DataLoader worker" in str(error):
        return _of_a_worker(str(error))
    if isinstance(error, ConnectionError) and _from_a_loader(error):
        return _of_a_worker(f"a DataLoader worker died while it handed over a batch ({error.strerror})")
    if type(error).__name__ == "MisconfigurationException":  # Lightning's, by name to spare its import
        return " ".join(str(error).split())
    if isinstance(error, RuntimeError) and str(error).startswith("Error(s) in loading state_dict"):
        # Files of weights are checked as they are read: this is Lightning taking up a checkpoint.
        what = (str(error).splitlines()[1:] or [""])[0].strip().rstrip(". ")
        first = what.partition(", ")[0] if "key(s)" in what else what
        return (
            f"the checkpoint is of another network or adapter ({first}): --ckpt_path resumes the very same run; source "
            "weights go to --model.weights"
        )
    return None


def _of_a_worker(said: str) -> str:
    """What a loader's worker died of: its exception stands in the last line of the traceback that it passes on."""
    if "Caught " in said:
        reason = said.strip().rpartition("\n")[2]
        return f"the data set failed in a worker of the loader: {reason}; --traceback shows where"
    reason = " ".join(said.split())
    return f"{reason}: if memory ran out, lower data.num_workers or data.batch_size; go on with --ckpt_path last"


def _from_a_loader(error: Exception) -> bool:
    return any("torch/utils/data" in Path(frame.filename).as_posix() for frame in extract_tb(error.__traceback__))
