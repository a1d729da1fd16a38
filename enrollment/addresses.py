"""Addresses of servers, brought from the spellings of several manuals to the one that all libraries here understand.

What an address says that can never work is an error here, before anything starts, and not at each attempt to connect.
"""

import re
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from enrollment.errors import EnrollmentError

_REDIS: Final = ("redis", "rediss")
_AMQP: Final = ("amqp", "amqps")
POSTGRESQL: Final = ("postgresql", "postgresql+psycopg", "postgres")
_REDIS_EXAMPLE: Final = "redis://host:6379/0"
_AMQP_EXAMPLE: Final = "amqp://user:password@one:5672//;amqp://user:password@two:5672//"

_HOST: Final = re.compile(r"(\[[^\[\]@]+\]|[^:;,@\[\]]*)(:[0-9]*)?")  # with its port
_FILES: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_TLS: Final = frozenset((*_FILES, "ssl_cert_reqs", "ssl_check_hostname", "ssl_ciphers", "ssl_password"))
_UNREADABLE: Final = (
    "cannot be read: a port is a number from 1 to 65535, a Redis has one host, "
    "and in a password @ : / ? # % ; are written %40 %3A %2F %3F %23 %25 %3B."
)
_REQUIREMENTS: Final = {spelt: it for it in ("required", "optional", "none") for spelt in (it, f"cert_{it}")}
_SWITCH: Final = {"true": "true", "1": "true", "yes": "true", "false": "false", "0": "false", "no": "false"}


class AddressError(EnrollmentError):
    """An address can never work."""


def is_redis(url: str) -> bool:
    """Tell whether an address is of a Redis."""
    return urlsplit(url).scheme in _REDIS


def broker_url(url: str, name: str) -> str:
    """Return a broker's address as kombu and redis-py read it. Raises AddressError, which calls it `name`.

    Of RabbitMQ, it may be those of several nodes, with semicolons between.
    """
    if not url.startswith(tuple(f"{scheme}://" for scheme in _AMQP)):
        return _redis(split(url, name, (*_REDIS, *_AMQP), _REDIS_EXAMPLE), name)
    nodes = [node.strip() for node in url.split(";")]
    for node in nodes:
        refuse_strays(split(node, name, (nodes[0].partition("://")[0],), _AMQP_EXAMPLE), name)
    return ";".join(nodes)


def redis_url(url: str, name: str = "The address of Redis") -> str:
    """Return the address of a Redis as kombu and redis-py read it. Raises AddressError, which calls it `name`.

    The database is the path or `db`. TLS is said as in Celery's manual (`CERT_REQUIRED`) or in redis-py's (`required`);
    where nothing is said, certificates are required.
    """
    return _redis(split(url, name, _REDIS, _REDIS_EXAMPLE), name)


def split(url: str, name: str, schemes: tuple[str, ...], example: str) -> SplitResult:
    """Return the parts of an address of one of these schemes. Raises AddressError, which calls it `name`."""
    scheme, separator, rest = url.partition("://")
    if not separator or not rest or scheme not in schemes:
        raise AddressError(
            f"{name} must start with {' or '.join(it + '://' for it in schemes)}, without quotes, as in {example}."
        )
    try:
        parts = urlsplit(url)
        if scheme in POSTGRESQL or parts.port != 0:
            return parts
    except ValueError:
        pass
    raise AddressError(f"{name} {_UNREADABLE}")


def refuse_strays(parts: SplitResult, name: str) -> None:
    """Raise AddressError if a character of the password seems to have cut the address; no part of it is then shown."""
    who, _, hosts = parts.netloc.rpartition("@")
    several = parts.scheme in POSTGRESQL
    cut = "@" in parts.path or parts.fragment or (not who and "@" in parts.query)
    cut = cut or (several and "@" in who)  # libpq ends a password at the first, the others at the last
    if cut or not all(map(_HOST.fullmatch, hosts.split(",") if several else [hosts])):
        raise AddressError(f"{name} {_UNREADABLE}")


def _redis(parts: SplitResult, name: str) -> str:
    refuse_strays(parts, name)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    path = parts.path.strip("/")
    database = options.pop("db", path)
    if not re.fullmatch("[0-9]*", database) or path not in {"", database}:
        raise AddressError(f"{name} has a database that is no number, or two; write it as {_REDIS_EXAMPLE}.")
    secure = parts.scheme == "rediss"
    for option in options.keys() - (_TLS if secure else ()):
        known = f"take it out: db, {', '.join(sorted(_TLS))} are all that is read, and timeouts are the worker's own"
        hint = "start it with rediss://" if option in _TLS else known
        raise AddressError(f"{name} has the option {option}; {hint}.")
    query = "?" + urlencode(_tls(options, name)) if secure else ""
    return f"{parts.scheme}://{parts.netloc}{database and '/' + database}{query}"


def _tls(options: dict[str, str], name: str) -> dict[str, str]:
    """Return the options of TLS in redis-py's spelling, which kombu reads as well."""
    required = _REQUIREMENTS.get(options.get("ssl_cert_reqs", "required").lower())
    checked = _SWITCH.get(options.get("ssl_check_hostname", "true").lower())
    if required is None or checked is None:
        values = "CERT_REQUIRED, CERT_OPTIONAL or CERT_NONE" if required is None else "true or false"
        option = "ssl_cert_reqs" if required is None else "ssl_check_hostname"
        raise AddressError(f"{name} has a wrong value of {option}; it is {values}.")
    load_certificates(name, options)
    return {**options, "ssl_cert_reqs": required, "ssl_check_hostname": checked}


def load_certificates(name: str, options: dict[str, str]) -> None:
    """Raise AddressError, which calls the address `name`, where what TLS needs cannot be loaded."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca, folder, certificate, key = map(options.get, _FILES)
    try:
        for file in filter(None, (ca, folder, certificate, key)):
            Path(file).stat()
        if ca or folder:
            context.load_verify_locations(ca, folder)
        if certificate or key:  # without a password, OpenSSL would ask for one on the terminal
            context.load_cert_chain(certificate or "", key, lambda: options.get("ssl_password", ""))
        context.set_ciphers(options.get("ssl_ciphers", "DEFAULT"))
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise AddressError(
            f"{name} names certificates, a key or ciphers that cannot be used ({reason}); "
            "see that they are PEM files, that they belong together and that this user may read them."
        ) from None
