"""The names on the wire: task names and queues. They are promises; modules may move, these may not."""

from collections.abc import Mapping
from typing import Final

from enrollment.commands import Kind

ENROLL: Final = "enrollment.enroll.v1"
UNENROLL: Final = "enrollment.unenroll.v1"
REPLACE: Final = "enrollment.replace.v1"
APPLY: Final = "enrollment.apply.v1"

TASKS: Final[Mapping[Kind, str]] = {Kind.ENROLL: ENROLL, Kind.UNENROLL: UNENROLL, Kind.REPLACE: REPLACE}

QUEUE: Final = "enrollment"  # the three single commands
BULK_QUEUE: Final = "enrollment.bulk"  # `apply` messages

STREAM: Final = "enrollment.events"  # result events; an operator may choose another key
