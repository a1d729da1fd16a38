"""Errors as a person should read them: one sentence, and what to do."""

from typing import Final

from enrollment.errors import EnrollmentError

_DATABASE: Final = (
    "The database did not answer as it should ({reason}). "
    "See that it runs, that ENROLLMENT_DATABASE_URL names it and that `enrollment migrate` was run."
)
_REDIS: Final = (
    "Redis did not answer as it should ({reason}). "
    "See that it runs and that ENROLLMENT_BROKER_URL or ENROLLMENT_EVENTS_URL names it."
)


class MissingExtra(EnrollmentError):
    """A part of the program was not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"{module} is not installed; it comes with pip install 'enrollment-worker[{extra}]'.")


def sentence_of(error: BaseException) -> str | None:
    """Return what to tell a person; None for what nobody foresaw, whose traceback is needed."""
    module = type(error).__module__.partition(".")[0]  # what was never imported cannot have been raised
    if isinstance(error, EnrollmentError):
        return str(error)
    if module in ("alembic", "worker"):
        from alembic.util import CommandError

        from worker.local.errors import LocalError

        return str(error) if isinstance(error, (CommandError, LocalError)) else None
    if module == "sqlalchemy":
        from models.db_errors import describe, is_outage

        return _DATABASE.format(reason=describe(error)) if is_outage(error) else None
    if module == "redis":
        return _REDIS.format(reason=str(error).rstrip("."))
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    return None
