"""What a message may take: the memory of a worker stays bounded, whatever anyone sends (docs/messages.md, "Limits")."""

from typing import Final

MOST_BYTES: Final = 16 * 1024 * 1024  # of an entry as it lies in the queue; a larger one is set aside unread
MOST_INFLATED: Final = 4 * 1024 * 1024  # bytes of a body that came compressed; of the bodies that are decoded at once
MOST_VALUES: Final = 1_200_000  # in JSON: a thousand commands of a thousand courses. A value takes up to some 200 bytes
MOST_ID: Final = 255  # characters of the id and of the task's name; both are logged and told


def many_values(text: bytes) -> bool:
    """Tell whether JSON holds more values than are decoded: by its commas and brackets, those in strings included."""
    # Counting takes longer than to decode a command, and fewer bytes than that have no room for them.
    return len(text) > MOST_VALUES and text.count(b",") + text.count(b"[") + text.count(b"{") > MOST_VALUES


TOO_MANY_VALUES: Final = f"it has more than {MOST_VALUES:,} values"
