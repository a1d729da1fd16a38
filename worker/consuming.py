"""The old path of the group consumer in `enrollment.consumer`, for one version."""

import warnings

from enrollment.consumer import EntryBatch as Batch
from enrollment.consumer import GroupConsumer as Consumer

__all__ = ["Batch", "Consumer"]

warnings.warn("worker.consuming has moved: import from enrollment.consumer.", DeprecationWarning, stacklevel=2)
