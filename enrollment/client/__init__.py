"""The producer: what a program uses that sends commands and waits for their outcome."""

from enrollment.client.errors import BrokerAway, InvalidCommand, NoEventsAddress, NoOutcomeYet
from enrollment.client.producer import Bulk, Client, CommandFields, Sender, read_command

__all__ = [
    "BrokerAway",
    "Bulk",
    "Client",
    "CommandFields",
    "InvalidCommand",
    "NoEventsAddress",
    "NoOutcomeYet",
    "Sender",
    "read_command",
]
