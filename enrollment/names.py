"""The names on the wire: task names and queues. They are promises; modules may move, these may not."""

from collections.abc import Mapping
from typing import Final

from enrollment.commands import Kind

ENROLL: Final = "enrollment.enroll.v1"
UNENROLL: Final = "enrollment.unenroll.v1"
REPLACE: Final = "enrollment.replace.v1"
APPLY: Final = "enrollment.apply.v1"
WITHDRAW: Final = "enrollment.withdraw.v1"

# What kind of command a message of a task is; None: it brings many, each of which says its own.
KINDS: Final[Mapping[str, Kind | None]] = {
    ENROLL: Kind.ENROLL,
    UNENROLL: Kind.UNENROLL,
    REPLACE: Kind.REPLACE,
    WITHDRAW: Kind.WITHDRAW,
    APPLY: None,
}
TASKS: Final[Mapping[Kind, str]] = {kind: task for task, kind in KINDS.items() if kind}

QUEUE: Final = "enrollment"  # the single commands
BULK_QUEUE: Final = "enrollment.bulk"  # `apply` messages

# How RabbitMQ has both queues. Whoever declares one says the same, or is refused. No message may be dropped for having
# been returned too often, as RabbitMQ 4 does after 20 times: a connection that is lost returns all that was delivered.
QUEUE_ARGUMENTS: Final[Mapping[str, str | int]] = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}

STREAM: Final = "enrollment.events"  # result events; an operator may choose another key
