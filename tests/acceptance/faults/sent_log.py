"""What the producers know: which messages they sent, how often, and for which of them they had the broker's word."""

import json
import threading
from collections import Counter
from dataclasses import dataclass, field

from tests.acceptance.faults.commands import Message, SentCommand


@dataclass
class SentLog:
    """Written by all producers. A message whose sending failed may have arrived all the same."""

    said: dict[str, dict[str, SentCommand]] = field(default_factory=dict)  # command id -> content -> what was said
    confirmed: set[tuple[str, str]] = field(default_factory=set)  # (command id, content)
    marked: Counter[str] = field(default_factory=Counter)  # marker -> times a message with it was sent
    marked_confirmed: set[str] = field(default_factory=set)
    messages: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def sending(self, message: Message) -> None:
        """Note it before it is sent: from here on it may arrive."""
        with self._lock:
            self.marked.update(message.markers)
            for said in message.said:
                self.said.setdefault(said.command_id, {})[content_of(said)] = said

    def sent(self, message: Message) -> None:
        """Note that the broker has it: from here on it must not be lost."""
        with self._lock:
            self.messages += 1
            self.marked_confirmed.update(message.markers)
            self.confirmed.update((said.command_id, content_of(said)) for said in message.said)

    @property
    def commands(self) -> int:
        """How many different commands were confirmed."""
        return len({command_id for command_id, _ in self.confirmed}) + len(self.marked_confirmed)


def content_of(said: SentCommand) -> str:
    return f"{said.kind} {json.dumps(said.fields, sort_keys=True)}"
