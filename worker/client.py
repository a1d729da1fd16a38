"""The old path of `enrollment.client`, for one version."""

import warnings

from enrollment.client import BrokerAway, Bulk, Client, InvalidCommand, NoEventsAddress, Sender, read_command

__all__ = ["BrokerAway", "Bulk", "Client", "InvalidCommand", "NoEventsAddress", "Sender", "read_command"]

warnings.warn("worker.client has moved: import from enrollment.client.", DeprecationWarning, stacklevel=2)
