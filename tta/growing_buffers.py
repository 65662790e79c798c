"""State whose size the stream decides."""

from typing import Any, ClassVar

import torch
from torch import nn


class GrowingBuffers(nn.Module):
    """A module whose buffers take over the shape of what is loaded into them, where that is no mistake.

    An empty buffer takes over any shape, and a filled one becomes empty where the stored one is. Otherwise shapes must
    agree, but for buffers that hold as many rows as the stream has brought so far.

    Attributes:
        growing: Names of those.
    """

    growing: ClassVar[tuple[str, ...]] = ()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401
        for name, buffer in self.named_buffers(recurse=False):
            stored = state_dict.get(prefix + name)
            if stored is None or stored.shape == buffer.shape:
                continue
            if name in self.growing or 0 in (buffer.numel(), stored.numel()):
                setattr(self, name, torch.empty_like(stored, device=buffer.device))
        super()._load_from_state_dict(state_dict, prefix, *args)
