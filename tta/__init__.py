"""Test-time adaptation of vision classifiers: online, without labels, with collapse measured.

``import tta`` needs torch alone; Lightning is imported with ``tta.modules``, ``tta.trainer`` or ``tta.cli``.
"""

from tta.adapters.registry import list_adapters
from tta.errors import InputError
from tta.online import OnlineModel, online

__version__ = "0.1.0"

__all__ = ("InputError", "OnlineModel", "list_adapters", "online")
