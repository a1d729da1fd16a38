"""What docs/messages.md shows, for tests that hold it to its word."""

import re
from pathlib import Path

MESSAGES = Path(__file__).parents[1] / "docs" / "messages.md"


def blocks(name: str) -> list[str]:
    """Return the JSON blocks of this name."""
    found = re.findall(rf"```json {name}\n(.+?)\n```", MESSAGES.read_text(encoding="utf-8"))
    assert found, f"no block {name!r}"
    return found
