"""Who asks, and what they may do: API keys, and for the admin page sessions in a signed cookie."""

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from time import time
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import Headers

from gateway.problems import Problem
from worker.credentials import Admin, ApiKey, Scope

LOCAL: Final = "local"  # the client's name where no keys are configured
SESSION_COOKIE: Final = "enrollment_session"
SESSION_SECONDS: Final = 8 * 60 * 60  # a working day
_HOST: Final = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::\d*)?")  # RFC 9110, section 7.2
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="enrollment"'}


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request."""

    name: str
    scopes: frozenset[Scope]

    @property
    def source(self) -> str:
        """The `source` of the client's commands."""
        return f"http/{self.name}"

    def require(self, scope: Scope) -> None:
        """Do nothing if the client may. Raises a Problem, 403."""
        if scope not in self.scopes:
            raise Problem(403, "forbidden", f"This key lacks the scope `{scope}`; use one that has it.")


_LOCAL: Final = Caller(LOCAL, frozenset(Scope))


class Authenticator:
    """The clients there are. Without any, this machine alone is answered, and may do everything."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._keys = keys

    @property
    def local_only(self) -> bool:
        """Whether there are no keys."""
        return not self._keys

    def client_of(self, headers: Headers, address: str | None) -> Caller:
        """Return who sent a request from `address`. Raises a Problem, 401 or 403."""
        if self.local_only:
            _require_local(headers, address)
            return _LOCAL
        key = _key_of(headers)
        # All are compared, so that the time says nothing about which client it is.
        found = [client for client in self._keys if client.matches(key)] if key else []
        if not found:
            detail = "This key is not known" if key else "A key is needed"
            raise Problem(
                401,
                "unauthorized",
                f"{detail}: send the one you were given, as `Authorization: Bearer …` or as `X-API-Key: …`.",
                headers=_CHALLENGE,
            )
        return Caller(found[0].name, found[0].scopes)


def _key_of(headers: Headers) -> str | None:
    kind, _, key = headers.get("authorization", "").partition(" ")
    return (key.strip() if kind.lower() == "bearer" else None) or headers.get("x-api-key")


def _require_local(headers: Headers, address: str | None) -> None:
    """Refuse other machines, and web pages whose own name was made to point at this one (DNS rebinding)."""
    host = _HOST.fullmatch(headers.get("host", ""))
    if not (is_loopback(address or "") and host and is_loopback(host[1] or host[2])):
        raise Problem(
            403,
            "forbidden",
            "No keys are configured, so only this machine is answered, by the name localhost. "
            "Configure clients in ENROLLMENT_GATEWAY_KEYS; `enrollment gateway key` makes one.",
        )


@lru_cache
def is_loopback(address: str) -> bool:
    """Tell whether an address is this machine's own."""
    if address.lower() == "localhost":
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


@lru_cache
def network_of(address: str) -> str:
    """Return what counts as one place when requests are counted: an address, and of IPv6 its network (/64)."""
    try:
        it = ip_address(address)
    except ValueError:
        return address
    if not isinstance(it, IPv6Address):
        return str(it)
    return str(it.ipv4_mapped or IPv6Network((int(it), 64), strict=False))


class Session(BaseModel):
    """An administrator who has logged in. `csrf` is to come back with every form."""

    model_config = ConfigDict(frozen=True)

    name: str
    csrf: str
    expires: int  # seconds since 1970

    @property
    def id(self) -> str:
        """What names the session, and is no secret."""
        return hashlib.sha256(self.csrf.encode()).hexdigest()[:32]

    @property
    def source(self) -> str:
        """The `source` of the administrator's commands."""
        return f"admin/{self.name}"

    def has_csrf(self, token: str | None) -> bool:
        """Tell whether a form came from one of our pages."""
        return token is not None and hmac.compare_digest(token.encode(), self.csrf.encode())


class Sessions:
    """Logs administrators in, and knows them again by their cookie: what it says, signed (HMAC-SHA256)."""

    def __init__(self, admins: Sequence[Admin], secret: str | None, *, now: Callable[[], float] = time) -> None:
        """Sign with `secret`; None makes one up, and sessions then end with the process."""
        self._admins = {admin.name: admin for admin in admins}
        self._secret = (secret or secrets.token_urlsafe(32)).encode()
        self._now = now
        self._nobody = Admin.create("nobody", secrets.token_urlsafe(32))

    @property
    def configured(self) -> bool:
        """Whether there is anyone who can log in."""
        return bool(self._admins)

    def log_in(self, name: str, password: str) -> Session | None:
        """Return a new session, or None. Takes as long for a name that is unknown. Call it off the event loop."""
        admin = self._admins.get(name)
        if not (admin or self._nobody).matches(password) or admin is None:
            return None
        return Session(name=name, csrf=secrets.token_urlsafe(24), expires=int(self._now()) + SESSION_SECONDS)

    def cookie_of(self, session: Session) -> str:
        """Return the value of the cookie. Set it `HttpOnly`, `SameSite`, and `Secure` where it is HTTPS."""
        payload = urlsafe_b64encode(session.model_dump_json().encode()).decode()
        return f"{payload}.{self._sign(payload, session.name)}"

    def session_of(self, cookie: str | None) -> Session | None:
        """Return the session of a cookie, if it is ours, not over, and the administrator is still one."""
        payload, _, signature = (cookie or "").rpartition(".")
        try:
            session = Session.model_validate_json(urlsafe_b64decode(payload))
        except (ValueError, ValidationError):
            return None
        if not hmac.compare_digest(signature.encode(), self._sign(payload, session.name).encode()):
            return None
        return session if session.expires > self._now() and session.name in self._admins else None

    def _sign(self, payload: str, name: str) -> str:
        """Sign with the password's hash as well: a new password ends the sessions of the old one."""
        admin = self._admins.get(name, self._nobody)
        return hmac.new(self._secret, f"{admin.password} {payload}".encode(), hashlib.sha256).hexdigest()
