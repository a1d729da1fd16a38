"""The readers of the event stream: for one process, and for a group of them."""

from enrollment.consumer.feed import Feed
from enrollment.consumer.group_consumer import EntryBatch, GroupConsumer
from enrollment.consumer.reader import BEGINNING, Entry, EventsMissed, Reader

__all__ = ["BEGINNING", "Entry", "EntryBatch", "EventsMissed", "Feed", "GroupConsumer", "Reader"]
