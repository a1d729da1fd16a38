"""What a producer may be told."""

from uuid import UUID

from enrollment.errors import EnrollmentError


class InvalidCommand(EnrollmentError):
    """This is not a valid command; nothing was sent. `fields` names what is wrong."""

    def __init__(self, message: str, fields: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.fields = fields


class NoEventsAddress(EnrollmentError):
    """The event stream lives in a Redis, and its address was not given."""

    def __init__(self) -> None:
        super().__init__("The broker is no Redis; say where the event stream is: Client(…, events_url='redis://…').")


class BrokerAway(EnrollmentError):
    """The broker did not take a message. It may have `command_ids` all the same: send them again as they were."""

    def __init__(self, broker: str, seconds: float, reason: str, command_ids: tuple[UUID, ...]) -> None:
        super().__init__(
            f"The broker at {broker} did not take the message within {seconds:.0f} s ({reason}). See that it runs and "
            "can be reached, then send again; a command that did arrive takes effect once all the same."
        )
        self.command_ids = command_ids
        self._about = broker, seconds, reason

    def of(self, command_ids: tuple[UUID, ...]) -> "BrokerAway":
        """Return the same, of some of the commands."""
        return BrokerAway(*self._about, command_ids)


class NoOutcomeYet(EnrollmentError):
    """The event of the command did not come in time. The command may still be in the queue."""

    def __init__(self, command_id: UUID, seconds: float) -> None:
        super().__init__(
            f"No event of the command {command_id} came within {seconds:g} s. See that a worker runs, then wait again; "
            "or send the same command again under its id, which takes effect once all the same."
        )
        self.command_id = command_id
