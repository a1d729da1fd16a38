"""The old path of the reader in `enrollment.consumer`, for one version."""

import warnings

from enrollment.consumer import BEGINNING, Entry, EventsMissed, Reader

__all__ = ["BEGINNING", "Entry", "EventsMissed", "Reader"]

warnings.warn("worker.streaming has moved: import from enrollment.consumer.", DeprecationWarning, stacklevel=2)
