"""Who may use the HTTP gateway, as the settings say it: clients with keys, administrators with passwords."""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field

_NAME: Final = r"^[A-Za-z0-9._-]{1,48}$"  # also stands in `source`, as in `http/portal`
_SHA256: Final = r"^[0-9a-f]{64}$"
_SCRYPT: Final = r"^scrypt\.[0-9a-f]{32}\.[0-9a-f]{64}$"
_KEY_BYTES: Final = 32


class Scope(StrEnum):
    """What a client may do."""

    READ = "read"
    WRITE = "write"


class ApiKey(BaseModel):
    """A client of the gateway. A key has 256 random bits, so one round of SHA-256 keeps it."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=_NAME)]
    scopes: Annotated[frozenset[Scope], Field(min_length=1)]
    sha256: Annotated[str, Field(pattern=_SHA256, repr=False)]

    @classmethod
    def create(cls, name: str, scopes: Sequence[Scope]) -> tuple[Self, str]:
        """Return a new client, and the key to hand to it: it is kept nowhere."""
        key = secrets.token_urlsafe(_KEY_BYTES)
        return cls(name=name, scopes=frozenset(scopes), sha256=hashlib.sha256(key.encode()).hexdigest()), key

    def matches(self, key: str) -> bool:
        """Tell whether this is the client's key, in a time that does not depend on how much of it is right."""
        return hmac.compare_digest(hashlib.sha256(key.encode()).hexdigest(), self.sha256)

    def setting(self) -> str:
        """Return the client as it stands in the setting."""
        return f"{self.name}:{'+'.join(sorted(self.scopes))}:{self.sha256}"


class Admin(BaseModel):
    """A person who may use the admin page. People choose passwords, so these are kept by scrypt."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=_NAME)]
    password: Annotated[str, Field(pattern=_SCRYPT, repr=False)]

    @classmethod
    def create(cls, name: str, password: str) -> Self:
        """Return an administrator with this password."""
        salt = secrets.token_bytes(16)
        return cls(name=name, password=f"scrypt.{salt.hex()}.{_scrypt(password, salt)}")

    def matches(self, password: str) -> bool:
        """Tell whether this is the administrator's password. Takes some 50 ms, on purpose."""
        _, salt, expected = self.password.split(".")
        return hmac.compare_digest(_scrypt(password, bytes.fromhex(salt)), expected)

    def setting(self) -> str:
        """Return the administrator as they stand in the setting."""
        return f"{self.name}:{self.password}"


def _scrypt(password: str, salt: bytes) -> str:
    # RFC 7914; 16 MiB of memory.
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1, dklen=32).hex()


def read_keys(value: Any) -> Any:
    """Read `name:scope+scope:hash` items, separated by blanks or commas, or a JSON list of objects."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [
        {"name": name, "scopes": scopes.split("+"), "sha256": sha256}
        for name, scopes, sha256 in (_parts(item, 3) for item in _items(value))
    ]


def read_admins(value: Any) -> Any:
    """Read `name:hash` items, separated by blanks or commas."""
    if not isinstance(value, str):
        return value
    return [{"name": name, "password": password} for name, password in (_parts(item, 2) for item in _items(value))]


def _items(value: str) -> list[str]:
    return [item for item in re.split(r"[\s,]+", value) if item]


def _parts(item: str, count: int) -> list[str]:
    parts = item.split(":")
    if len(parts) != count:
        raise ValueError(f"an item has {len(parts)} parts between colons, not {count}")
    return parts


def no_repeats(named: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse two of the same name: whose key it was could not be told."""
    if len({one.name for one in named}) < len(named):
        raise ValueError("a name stands there twice")
    return named
