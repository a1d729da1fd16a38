"""Settings from files, as engines mount secrets: `ENROLLMENT_DATABASE_URL_FILE` names a file with the address.

The files are read again for each new connection, so that a password is changed without a restart (docs/security.md).
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource
from redis import CredentialProvider

from enrollment.errors import EnrollmentError

SUFFIX: Final = "_FILE"
IN_FILES: Final = "fields in files"  # no variable has such a name


class SecretFileError(EnrollmentError):
    """A variable names a file that cannot be used."""


class SecretFiles(PydanticBaseSettingsSource):
    """Reads `<variable>_FILE` for each field. Raises SecretFileError, which shows no part of what is in the file."""

    def __init__(self, settings: type[BaseSettings], variables: Mapping[str, str | None]) -> None:
        """Take the variables in lower case, without those that are set to nothing."""
        super().__init__(settings)
        self._variables = variables
        self._prefix = settings.model_config.get("env_prefix", "")

    def __call__(self) -> dict[str, Any]:
        """Return the fields that are in files."""
        fields = self.settings_cls.model_fields.items()
        found = {name: self.get_field_value(field, name)[0] for name, field in fields}
        values = {name: value for name, value in found.items() if value is not None}
        return {**values, IN_FILES: frozenset(values)}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 (pydantic's)
        """Return what is in the field's file, None where no file is named."""
        variable = f"{self._prefix}{field_name}".upper()
        path = self._variables.get(f"{variable}{SUFFIX}".lower())
        if path is None:
            return None, field_name, False
        if self._variables.get(variable.lower()) is not None:
            raise SecretFileError(f"{variable} and {variable}{SUFFIX} are both set; set one of the two.")
        return _read(f"{variable}{SUFFIX}", path), field_name, False


def _read(variable: str, path: str) -> str:
    try:
        value = Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SecretFileError(
            f"{variable} names {path}, which cannot be read ({reason}); see that it is there and that this user may."
        ) from None
    if not value:
        raise SecretFileError(f"{variable} names {path}, which is empty; write the value into it.")
    return value


class Newest:
    """An address as it is in its file now; as it was last, while the file is being replaced or has a mistake."""

    def __init__(self, read: Callable[[], str], last: str) -> None:
        """Take what it was last."""
        self._read = read
        self._last = last

    def __call__(self) -> str:
        """Return the address."""
        with suppress(EnrollmentError):  # the connection that is made with the old one has its own error to tell
            self._last = self._read()
        return self._last


def renewing(url: str, credentials: CredentialProvider | None) -> dict[str, Any]:
    """Return what `Redis.from_url` is given, so that `credentials` replace those in the address where there are any."""
    if credentials is None:
        return {"url": url}
    parts = urlsplit(url)
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    return {"url": plain.geturl(), "credential_provider": credentials}


class NewestCredentials(CredentialProvider):
    """User and password of an address of Redis, asked for by redis-py whenever it connects."""

    def __init__(self, address: Callable[[], str]) -> None:
        """Take them from what `address` returns."""
        self._address = address

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return the password, with the user before it where there is one."""
        parts = urlsplit(self._address())
        password = unquote(parts.password or "")
        return (unquote(parts.username), password) if parts.username else (password,)
