"""Who uses the admin page: a login where administrators are configured, else whoever is at this machine."""

import secrets
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from math import ceil
from time import monotonic, time
from typing import Annotated, Final, Self, cast
from urllib.parse import urlsplit

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request
from starlette.datastructures import FormData
from starlette.responses import Response

from gateway.admin.errors import LoginNeeded, PageError
from gateway.authentication import SESSION_SECONDS, Session, Sessions, is_loopback, network_of
from gateway.dependencies import held_by
from gateway.redis_store import EndedSessions
from worker.credentials import Admin

LOCAL: Final = "local"  # the name of whoever uses the page without a login
ATTEMPTS: Final = 10  # logins from one address (IPv6: network) in one window
NAME_ATTEMPTS: Final = 30  # logins by one name, from anywhere: more, so that one machine alone keeps nobody out
WINDOW: Final = 300.0  # seconds
MAX_FIELDS: Final = 20_000  # of one form; a student of very many courses has a box for each
_REMEMBERED: Final = 10_000  # at once; what was tried longest ago is forgotten first
_LONGEST: Final = 50  # characters of a name that are remembered; no administrator has as many
_AT_ONCE: Final = 2  # passwords checked at the same time: each takes memory and a core, on purpose


class Attempts:
    """Counts the logins that were tried, by whatever they have in common. In memory, per process."""

    def __init__(self, limit: int = ATTEMPTS, *, now: Callable[[], float] = monotonic) -> None:
        self._limit = limit
        self._now = now
        self._tried: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, what: str) -> None:
        """Count one, before it is judged. Raises PageError when there were too many."""
        now = self._now()
        tried = self._tried.pop(what, deque())
        self._tried[what] = tried
        while tried and tried[0] <= now - WINDOW:
            tried.popleft()
        if len(tried) >= self._limit:
            seconds = ceil(tried[0] + WINDOW - now)
            headers = {"Retry-After": str(seconds)}
            raise PageError(429, "Too many attempts", f"Wait {seconds} seconds, then log in again.", headers)
        tried.append(now)
        if len(self._tried) > _REMEMBERED:
            self._tried.popitem(last=False)

    def forget(self, what: str) -> None:
        """Forget what was tried by someone who knew the password."""
        self._tried.pop(what, None)


@dataclass(frozen=True, slots=True)
class AuthPolicy:
    """What one process knows of logins."""

    sessions: Sessions
    ended: EndedSessions
    with_login: bool
    attempts: Attempts = field(default_factory=Attempts)
    names: Attempts = field(default_factory=lambda: Attempts(NAME_ATTEMPTS))
    limiter: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(_AT_ONCE))

    @classmethod
    def of(cls, sessions: Sessions, ended: EndedSessions) -> Self:
        """Return the policy for the administrators there are, or for this machine alone where there is none."""
        if sessions.configured:
            return cls(sessions, ended, with_login=True)
        return cls(Sessions([Admin.create(LOCAL, secrets.token_urlsafe(32))], None), ended, with_login=False)

    async def log_in(self, address: str, name: str, password: str) -> Session | None:
        """Return a new session, or None. Raises PageError after too many attempts."""
        network, short = network_of(address), name[:_LONGEST]
        self.attempts.take(network)
        self.names.take(short)
        session = await to_thread.run_sync(self.sessions.log_in, name, password, limiter=self.limiter)
        if session is not None:
            self.attempts.forget(network)
            self.names.forget(short)
        return session

    async def log_out(self, session: Session) -> None:
        """End a session, whoever has a copy of its cookie, at every gateway. Raises redis.RedisError."""
        await self.ended.add(session.id, session.expires)

    async def is_open(self, session: Session) -> bool:
        """Tell whether a session goes on: nobody logged out, and its time is not over. Raises redis.RedisError."""
        return session.expires > time() and not (self.with_login and await self.ended.has(session.id))


def policy_of(request: Request) -> AuthPolicy:
    """Return the policy of this process."""
    state = request.app.state
    if not hasattr(state, "admin_auth_policy"):
        gateway = held_by(request)
        state.admin_auth_policy = AuthPolicy.of(gateway.sessions, gateway.ended)
    return cast(AuthPolicy, state.admin_auth_policy)


def address_of(request: Request) -> str:
    """Return where a request comes from."""
    return request.client.host if request.client else ""


def cookie_name(request: Request, name: str) -> str:
    """Return a cookie's name: over HTTPS with the prefix that makes browsers refuse one set by anyone else."""
    return f"__Host-{name}" if request.url.scheme == "https" else name


async def session_of(request: Request) -> Session:
    """Return the session of a request. Raises LoginNeeded; without administrators, PageError for other machines.

    Where Redis is away it cannot be known who logged out: raises redis.RedisError.
    """
    policy = policy_of(request)
    if not policy.with_login:
        _require_this_machine(request)
    session = policy.sessions.session_of(request.cookies.get(cookie_name(request, "enrollment_session")))
    if policy.with_login and (session is None or not await policy.is_open(session)):
        raise LoginNeeded
    if session is None:
        session = Session(name=LOCAL, csrf=secrets.token_urlsafe(24), expires=int(time()) + SESSION_SECONDS)
        request.state.new_session = session
    request.state.session = session
    return session


async def posted(request: Request, session: Annotated[Session, Depends(session_of)]) -> FormData:
    """Return a form that came from one of our pages. Raises PageError for any other."""
    require_same_site(request)
    form = await request.form(max_files=0, max_fields=MAX_FIELDS)
    _require_own(form, session)
    return form


async def uploaded(request: Request, session: Annotated[Session, Depends(session_of)]) -> AsyncIterator[FormData]:
    """Give a form with a file, which is on disk where it is large; it came from one of our pages. Raises PageError."""
    require_same_site(request)
    async with request.form(max_files=1, max_fields=20) as form:
        _require_own(form, session)
        yield form


def _require_own(form: FormData, session: Session) -> None:
    if not session.has_csrf(text_of(form, "csrf")):
        raise PageError(
            403, "This form is too old", "Nothing was changed. Open the page again and repeat what you did."
        )


def require_same_site(request: Request) -> None:
    """Refuse what a browser says another site sent. Raises PageError."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise PageError(403, "Refused", "This form was sent by another site. Nothing was changed.")


def text_of(form: FormData, name: str) -> str:
    """Return a field of a form, empty where it is missing."""
    value = form.get(name)
    return value if isinstance(value, str) else ""


def keep(request: Request, response: Response, session: Session) -> None:
    """Set the session's cookie."""
    set_cookie(request, response, "enrollment_session", policy_of(request).sessions.cookie_of(session), SESSION_SECONDS)


def set_cookie(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    """Set a cookie that scripts cannot read and other sites cannot send along with a form; 0 seconds takes it away."""
    secure = request.url.scheme == "https"
    response.set_cookie(
        cookie_name(request, name), value, max_age=seconds, path="/", secure=secure, httponly=True, samesite="lax"
    )


def _require_this_machine(request: Request) -> None:
    """Refuse other machines, and web pages whose own name was made to point at this one (DNS rebinding)."""
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    if not (is_loopback(address_of(request)) and is_loopback(host)):
        raise PageError(
            403,
            "No administrator is configured",
            "So this page answers the machine it runs on and no other, by the name localhost. To open it to others, "
            "name administrators in ENROLLMENT_GATEWAY_ADMINS; `enrollment gateway password` makes one.",
        )


Who = Annotated[Session, Depends(session_of)]
Posted = Annotated[FormData, Depends(posted)]
