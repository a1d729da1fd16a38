"""The database's address: libpq's URI, or SQLAlchemy's spelling of several hosts, as parameters of a connection."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import parse_qsl

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import PGconn, abc

from enrollment.addresses import POSTGRESQL, AddressError, load_certificates, refuse_strays, split

_HOST_AND_PORT: Final = re.compile(r"([^/:]+|\[.+\]):(\d+)")
_NUMBERS: Final = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)
_EXAMPLE: Final = "postgresql://user:password@host:5432/name"
_NO_SOCKET: Final = "/dev/null"  # a path below which there is no server


def database_url(url: str, name: str) -> str:
    """Return the address of a PostgreSQL in SQLAlchemy's form. Raises AddressError, which calls it `name`."""
    refuse_strays(split(url, name, POSTGRESQL, _EXAMPLE), name)
    try:
        said = parameters(url)
        check(said)
    except ValueError as error:
        raise AddressError(f"{name} {error}; write it as {_EXAMPLE} and options of libpq.") from None
    if said.get("sslrootcert", "system") != "system":
        load_certificates(name, {"ssl_ca_certs": said["sslrootcert"]})
    return "postgresql+psycopg://" + url.partition("://")[2]


def parameters(url: str) -> dict[str, str]:
    """Return what `url` says, by libpq's keywords. Raises ValueError for what libpq does not know or cannot read.

    The part before `?` is libpq's to read, with several hosts where there are. The part behind it is read as SQLAlchemy
    does: libpq takes no `=` in a value, as in `options=-csearch_path=school`, and of two `host` only the last.
    """
    where, _, query = url.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    said = dict(pairs)
    hosts = [value for name, value in pairs if name == "host"]
    split = [_HOST_AND_PORT.fullmatch(host) for host in hosts]
    if len(hosts) > 1 or any(split):
        said["host"] = ",".join(it[1].strip("[]") if it else host for it, host in zip(split, hosts, strict=True))
        if any(split):
            said["port"] = ",".join(it[2] if it else "" for it in split)
    try:
        read = conninfo_to_dict("postgresql://" + where.partition("://")[2])
        make_conninfo(**said)
    except ProgrammingError as error:
        raise ValueError(_unknown(said) or "cannot be read by libpq") from error
    return {name: str(value) for name, value in read.items()} | said


def check(said: dict[str, str]) -> None:
    """Raise ValueError, with the reason, if no connection can ever be made with these parameters. Asks no server."""
    for name in _NUMBERS:
        if not re.fullmatch(r"-?\d+", said.get(name, "0")):
            raise ValueError(f"has an option {name} that is no number")
    with _judged(said) as attempt:
        reason = attempt.get_error_message().splitlines()[0]
        if not reason.startswith("connection to server"):
            raise ValueError(f"is refused by libpq ({reason})")


def session_options(said: dict[str, str]) -> str:
    """Return libpq's `options` that would be in force: the address's, else its service's, else PGOPTIONS."""
    with _judged(said) as attempt:
        return str(attempt.options, "utf-8")


@contextmanager
def _judged(said: dict[str, str]) -> Iterator[abc.PGconn]:
    """Give what libpq makes of parameters before it looks for the server: its hosts are none, so it gives up there."""
    count = (said.get("host") or said.get("hostaddr") or "").count(",") + 1
    nowhere = {"host": ",".join([_NO_SOCKET] * count), "hostaddr": ""}
    attempt = PGconn.connect_start(make_conninfo(**{**said, **nowhere}).encode())
    try:
        yield attempt
    finally:
        attempt.finish()


def _unknown(said: dict[str, str]) -> str:
    for name in said:
        try:
            make_conninfo(**{name: ""})
        except ProgrammingError:
            return f"has an option that libpq does not know: {name}" if name.isidentifier() else ""
    return ""
