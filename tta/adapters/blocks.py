"""Named blocks of a network: found, measured, and their outputs replaced while a context lasts."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from tta.errors import InputError, first_line

Change = Callable[[Tensor], Tensor]


@contextmanager
def changed_outputs(model: nn.Module, changes: Mapping[str, Change]) -> Iterator[None]:
    """Within the context, outputs of blocks are replaced; the model itself stays as it is.

    Args:
        model: The network.
        changes: By name of the block, what makes the new output of the old one.
    """
    handles = []
    try:
        for name, change in changes.items():
            hook = _hook(name, change)
            handles.append(model.get_submodule(name).register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(name: str, change: Change) -> Callable[[nn.Module, object, object], Tensor]:
    def hook(module: nn.Module, inputs: object, output: object) -> Tensor:
        if not isinstance(output, Tensor):
            raise InputError(f"block {name!r} gives a {type(output).__name__}: take a block that gives one tensor")
        return change(output)

    return hook


def check_blocks(model: nn.Module, names: Sequence[str], argument: str) -> list[str]:
    """Names of blocks that the model has.

    Args:
        model: The network.
        names: Names as in ``model.named_modules()``.
        argument: What the user calls them.

    Raises:
        InputError: If there is none, one comes twice, or one matches nothing; the message lists candidates.
    """
    known = [name for name, _ in model.named_modules() if name]
    few = [name for name in known if name.count(".") <= 1]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
            raise InputError(
                f"{argument}: {name!r} is no block of {type(model).__name__}; candidates are "
                f"{', '.join([*near, *(key for key in few if key not in near)][:12])}"
            )
    if not names or len(set(names)) < len(names):
        raise InputError(f"{argument}={list(names)}: name at least one block, each once, such as {', '.join(few[:6])}")
    return list(names)


def shapes_after(
    model: nn.Module, names: Sequence[str], input_shape: Sequence[int]
) -> dict[str, tuple[list[int], bool]]:
    """Shape of the output of each block, and whether it is never negative, from a dry run on random images.

    Args:
        model: The network; its mode and the global generator are left alone.
        names: Names of the blocks.
        input_shape: Shape of an image, such as ``[3, 32, 32]``.

    Returns:
        By name: the shape without the batch axis, and ``True`` where no output was below 0, as after a ReLU.

    Raises:
        InputError: If the model cannot take such images, or a block does not run.
    """
    found: dict[str, tuple[list[int], bool]] = {}

    def keep(name: str) -> Change:
        def look(output: Tensor) -> Tensor:
            found[name] = (list(output.shape[1:]), bool((output >= 0).all()))
            return output

        return look

    images = torch.from_numpy(np.random.default_rng(0).random((4, *input_shape), dtype=np.float32))
    training = [module for module in model.modules() if module.training]
    try:
        with torch.no_grad(), changed_outputs(model.eval(), {name: keep(name) for name in names}):
            model(images.to(next(model.parameters()).device))
    except (RuntimeError, AssertionError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        shape = list(input_shape)
        raise InputError(f"input_shape={shape}: the backbone cannot take it: {first_line(error)}") from error
    finally:
        for module in training:
            module.training = True
    if silent := [name for name in names if name not in found]:
        raise InputError(f"blocks: {silent[0]!r} does not run in a forward pass; name one that does")
    return found
