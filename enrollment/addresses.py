"""Addresses of servers, brought from the spellings of several manuals to the one that all libraries here understand.

What an address says that can never work is an error here, before anything starts, and not at each attempt to connect.
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from enrollment.errors import EnrollmentError

_SENTINEL: Final = ("sentinel", "sentinels")
_REDIS: Final = ("redis", "rediss", *_SENTINEL)
_AMQP: Final = ("amqp", "amqps")
POSTGRESQL: Final = ("postgresql", "postgresql+psycopg", "postgres")
_REDIS_EXAMPLE: Final = "redis://host:6379/0"
_AMQP_NUMBERS: Final = ("connect_timeout", "heartbeat")  # options
_AMQP_EXAMPLE: Final = "amqp://user:password@one:5672//;amqp://user:password@two:5672//"
_SENTINEL_EXAMPLE: Final = "sentinel://:password@a:26379,b:26379,c:26379/0?master_name=mymaster"
_SENTINEL_PORT: Final = 26379
_MASTER: Final = "mymaster"  # as in every manual of Sentinel

_HOST: Final = re.compile(r"(\[[^\[\]@]+\]|[^:;,@\[\]]*)(:[0-9]*)?")  # with its port
_FILES: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_ASKED: Final = ("master_name", "sentinel_username", "sentinel_password")
_TLS: Final = frozenset((*_FILES, "ssl_cert_reqs", "ssl_check_hostname", "ssl_ciphers", "ssl_password"))
_TLS_OF_AMQP: Final = _TLS - {"ssl_ca_path", "ssl_password"}  # py-amqp has no words for these two
_UNREADABLE: Final = (
    "cannot be read: a port is a number from 1 to 65535, a Redis has one host, "
    "and in a password @ : / ? # % ; are written %40 %3A %2F %3F %23 %25 %3B."
)
_REQUIREMENTS: Final = {spelt: it for it in ("required", "optional", "none") for spelt in (it, f"cert_{it}")}
_SWITCH: Final = {"true": "true", "1": "true", "yes": "true", "false": "false", "0": "false", "no": "false"}


class AddressError(EnrollmentError):
    """An address can never work."""


def is_redis(url: str) -> bool:
    """Tell whether an address is of a Redis, behind Sentinel or not."""
    return url.partition("://")[0] in _REDIS


def is_rabbitmq(url: str) -> bool:
    """Tell whether an address is of RabbitMQ, or of several nodes of one."""
    return url.partition("://")[0] in _AMQP


def is_sentinel(url: str) -> bool:
    """Tell whether an address is of sentinels, which tell where the Redis is."""
    return url.partition("://")[0] in _SENTINEL


def broker_url(url: str, name: str) -> str:
    """Return a broker's address as kombu and redis-py read it. Raises AddressError, which calls it `name`.

    Of RabbitMQ, it may be those of several nodes, with semicolons between.
    """
    if not is_rabbitmq(url):
        split(url, name, (*_REDIS, *_AMQP), _REDIS_EXAMPLE)
        return redis_url(url, name)
    nodes = [node.strip() for node in url.split(";")]
    scheme = nodes[0].partition("://")[0]
    return ";".join(_amqp(split(node, name, (scheme,), _AMQP_EXAMPLE), name) for node in nodes)


def _amqp(parts: SplitResult, name: str) -> str:
    """Return the address of a node. Raises AddressError for an option that would end the worker with a traceback."""
    refuse_strays(parts, name)
    options, secure = dict(parse_qsl(parts.query, keep_blank_values=True)), parts.scheme == "amqps"
    for option, value in options.items():
        if option in _AMQP_NUMBERS and not re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
            raise AddressError(f"{name} has a wrong value of {option}; it is a number of seconds.")
        if option not in {*_AMQP_NUMBERS, *(_TLS_OF_AMQP if secure else ())}:
            hint = f"take it out: {', '.join(sorted({*_AMQP_NUMBERS, *_TLS_OF_AMQP}))} are all that is read"
            hint = "start it with amqps://" if option in _TLS_OF_AMQP else hint
            raise AddressError(f"{name} has the option {option}; {hint}.")
    query = urlencode(_tls(options, name) if secure else options)
    return f"{parts.scheme}://{parts.netloc}{parts.path}{query and '?' + query}"


def redis_url(url: str, name: str = "The address of Redis") -> str:
    """Return the address of a Redis as kombu and redis-py read it. Raises AddressError, which calls it `name`.

    The database is the path or `db`. TLS is said as in Celery's manual (`CERT_REQUIRED`) or in redis-py's (`required`);
    where nothing is said, certificates are required. Of sentinels, it may have several, with commas or in kombu's form;
    what is returned has commas.
    """
    parts = split(url, name, _REDIS, _REDIS_EXAMPLE)
    return _redis(_gathered(url, name) if is_sentinel(url) else parts, name)


def split(url: str, name: str, schemes: tuple[str, ...], example: str) -> SplitResult:
    """Return the parts of an address of one of these schemes. Raises AddressError, which calls it `name`."""
    scheme, separator, rest = url.partition("://")
    if not separator or not rest or scheme not in schemes:
        raise AddressError(
            f"{name} must start with {' or '.join(it + '://' for it in schemes)}, without quotes, as in {example}."
        )
    try:
        parts = urlsplit(url)
        if scheme in (*POSTGRESQL, *_SENTINEL) or parts.port != 0:
            return parts
    except ValueError:
        pass
    raise AddressError(f"{name} {_UNREADABLE}")


def refuse_strays(parts: SplitResult, name: str) -> None:
    """Raise AddressError if a character of the password seems to have cut the address; no part of it is then shown."""
    who, _, hosts = parts.netloc.rpartition("@")
    cut = "@" in parts.path or parts.fragment or (not who and "@" in parts.query)
    several = parts.scheme in (*POSTGRESQL, *_SENTINEL)
    cut = cut or (several and "@" in who)  # libpq ends a password at the first; and who says it twice means two servers
    if cut or not all(map(_HOST.fullmatch, hosts.split(",") if several else [hosts])):
        raise AddressError(f"{name} {_UNREADABLE}")


def _gathered(url: str, name: str) -> SplitResult:
    """Return one address for those that kombu separates by `;`, each of which may say who connects, and to what."""
    scheme, _, rest = url.partition("://")
    pieces = [urlsplit(f"{scheme}://{it}") for it in re.split(rf";(?:{scheme}://)?", rest)]
    for piece in pieces:
        refuse_strays(piece, name)
    netlocs = [piece.netloc.rpartition("@") for piece in pieces]
    hosts = [_with_port(host, name) for *_, several in netlocs for host in several.split(",")]
    options = dict(pair for piece in pieces for pair in parse_qsl(piece.query, keep_blank_values=True))
    said = [
        {it for it in each if it}
        for each in ((who for who, *_ in netlocs), (piece.path.strip("/") for piece in pieces))
    ]
    if any(len(each) > 1 for each in said):
        raise AddressError(f"{name} has two passwords or two databases; write it as {_SENTINEL_EXAMPLE}.")
    who, path = ("".join(each) for each in said)
    return SplitResult(scheme, f"{who}{who and '@'}{','.join(hosts)}", f"/{path}", urlencode(options), "")


def _with_port(host: str, name: str) -> str:
    _, separator, port = host.rpartition("]")[2].partition(":")
    if not host or (separator and not 0 < int(port or 0) < 65536):  # noqa: PLR2004 - ports have 16 bits
        raise AddressError(
            f"{name} names a sentinel without a host or with a wrong port; write it as {_SENTINEL_EXAMPLE}."
        )
    return host if separator else f"{host}:{_SENTINEL_PORT}"


def _redis(parts: SplitResult, name: str) -> str:
    refuse_strays(parts, name)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    path = parts.path.strip("/")
    database = options.pop("db", path)
    if not re.fullmatch("[0-9]*", database) or path not in {"", database}:
        raise AddressError(f"{name} has a database that is no number, or two; write it as {_REDIS_EXAMPLE}.")
    secure, sentinel = parts.scheme in ("rediss", "sentinels"), parts.scheme in _SENTINEL
    known = {"replicas", *(_ASKED if sentinel else ()), *(_TLS if secure else ())}
    for option in options.keys() - known:
        read = ", ".join(sorted({"db", *known, *_TLS}))
        hint = f"take it out: {read} are all that is read, and timeouts are the worker's own"
        hint = f"start it with {'sentinels' if sentinel else 'rediss'}://" if option in _TLS else hint
        raise AddressError(f"{name} has the option {option}; {hint}.")
    if not re.fullmatch("[0-9]", options.get("replicas", "0")):
        raise AddressError(f"{name} has a wrong value of replicas; it is a number from 0 to 9.")
    said = {"master_name": _MASTER, "replicas": "1", **options} if sentinel else options
    if sentinel and not said["master_name"]:
        raise AddressError(f"{name} has an empty master_name; it is the name that the sentinels monitor, as {_MASTER}.")
    query = urlencode(_tls(said, name) if secure else said)
    return f"{parts.scheme}://{parts.netloc}{database and '/' + database}{query and '?' + query}"


@dataclass(frozen=True, slots=True)
class Asked:
    """What an address of sentinels says: whom to ask, for which primary, and what to say to these and to that one."""

    hosts: tuple[tuple[str, int], ...]
    master_name: str
    sentinel: Mapping[str, Any]  # options of redis-py for the connections to sentinels
    server: Mapping[str, Any]  # and to the Redis that they name


def asked(url: str) -> Asked:
    """Return what `redis_url` made of an address of sentinels."""
    parts = urlsplit(url)
    who, _, hosts = parts.netloc.rpartition("@")
    user, _, password = (unquote(it) or None for it in who.partition(":"))
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    tls: dict[str, Any] = {name: value for name, value in options.items() if name in _TLS}
    if parts.scheme == "sentinels":
        tls |= {"ssl": True, "ssl_check_hostname": tls["ssl_check_hostname"] == "true"}
    pairs = (host.rpartition(":") for host in hosts.split(","))
    return Asked(
        hosts=tuple((host.strip("[]"), int(port)) for host, _, port in pairs),
        master_name=options["master_name"],
        sentinel={"username": options.get("sentinel_username"), "password": options.get("sentinel_password"), **tls},
        server={"username": user, "password": password, "db": int(parts.path.strip("/") or 0), **tls},
    )


def replicas_of(url: str) -> int:
    """Return how many replicas must have what is written to the Redis at this address before it counts as written."""
    return int(dict(parse_qsl(urlsplit(url).query)).get("replicas", 0)) if is_redis(url) else 0


def kombu_url(url: str) -> str:
    """Return an address as kombu reads it, and redis-py where it names no sentinels: without options of ours."""
    if not is_redis(url):
        return url
    parts = urlsplit(url)
    query = urlencode([(option, value) for option, value in parse_qsl(parts.query) if option in _TLS])
    who, at, hosts = parts.netloc.rpartition("@")
    scheme = "sentinel" if parts.scheme in _SENTINEL else parts.scheme
    tail = f"{parts.path}{query and '?' + query}"
    return ";".join(f"{scheme}://{who}{at}{host}{tail}" for host in (hosts.split(",") if is_sentinel(url) else [hosts]))


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
