"""What can keep a local process from starting: a class per reason, whose docstring is the message."""


class LocalError(RuntimeError):
    """A local process could not be started."""

    def __init__(self, **fields: object) -> None:
        super().__init__((type(self).__doc__ or "").format(**fields))


class MissingServer(LocalError):
    """{server} is not installed here: it comes with pip install 'enrollment-worker[local]'."""


class FolderInUse(LocalError):
    """{folder} is in use by another run: stop that one first."""


class UnsafeFolder(LocalError):
    """{folder} belongs to somebody else or is open to others: remove it, or choose another folder."""


class NamelessUser(LocalError):
    """PostgreSQL runs for no user without a name, as {uid} is: add one to /etc/passwd, or use servers of your own."""


class NotStarted(LocalError):
    """{name} did not start. The end of its log, {log}: {tail}"""


class NotReady(LocalError):
    """{name} did not answer within {seconds} s. The end of its log, {log}: {tail}"""
