"""The settings: the only reader of the environment. Each variable is `ENROLLMENT_` and the name of a field."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, Self, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from enrollment.addresses import AddressError, broker_url, is_redis, redis_url
from enrollment.commands import Source
from enrollment.errors import EnrollmentError
from enrollment.names import STREAM
from enrollment.waiting import Policy
from worker.credentials import Admin, ApiKey, no_repeats, read_admins, read_keys
from worker.lists import SEPARATOR
from worker.secret_files import IN_FILES, Newest, NewestCredentials, SecretFileError, SecretFiles


class SettingsError(EnrollmentError):
    """A setting is missing or wrong."""


def _level(value: str) -> str:
    return value.strip().upper()  # as Celery takes it: `-l info`


class BrokerOptions(BaseModel):
    """Transport options that name the keys in Redis: producers and workers must agree on them."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    sep: Annotated[str, Field(min_length=1)] = SEPARATOR
    priority_steps: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0, 3, 6, 9)
    global_keyprefix: str = ""


_LONGEST: Final = 3_000_000  # days; what is longer ends beyond the year 9999
Seconds = Annotated[float, Field(ge=0, le=_LONGEST * 86_400)]


class Patience(BaseModel):
    """How long commands wait for the catalog, in seconds: of all sources, and of some."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    seconds: Seconds = 0
    by_source: dict[Source, Seconds] = {}


def read_patience(value: object) -> object:
    """Read `600,portal=3600`."""
    if not isinstance(value, str):
        return value
    parts = [part.strip().rpartition("=") for part in value.split(",") if part.strip()]
    named = {source: number for source, equals, number in parts if equals}
    unnamed = [number for _, equals, number in parts if not equals]
    if len(unnamed) > 1 or len(named) + len(unnamed) < len(parts):
        raise ValueError("say seconds once, and once for each source: 600,portal=3600")
    return {"seconds": unnamed[0] if unnamed else 0, "by_source": named}


def _read_json(value: object) -> object:
    return json.loads(value or "{}") if isinstance(value, str) else value


class Settings(BaseSettings):
    """What an operator can set, each also as `<variable>_FILE`. `SecretStr` shows as stars in logs and errors."""

    model_config = SettingsConfigDict(
        env_prefix="ENROLLMENT_",
        env_ignore_empty=True,  # what a compose file sets to nothing is not set
        str_strip_whitespace=True,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    database_url: SecretStr | None = None
    read_url: Annotated[SecretStr | None, Field(description="Standbys for lookups; default: the primary.")] = None
    broker_url: SecretStr | None = None
    broker_options: Annotated[
        BrokerOptions,
        NoDecode,
        BeforeValidator(_read_json),
        Field(description='Of producers on Redis, as JSON: {"sep": ":", "global_keyprefix": "school:"}.'),
    ] = BrokerOptions()
    events_url: Annotated[SecretStr | None, Field(description="Redis of the event stream; default: the broker.")] = None
    events_stream: Annotated[str, Field(min_length=1, description="The stream's key.")] = STREAM
    events_maxlen: Annotated[
        int, Field(ge=1000, description="Events kept on the stream, about. One takes some 500 bytes of Redis memory.")
    ] = 1_000_000
    events_maxlen_unread: Annotated[
        int | None,
        Field(ge=1000, description="Events kept at most while a group has not read them. None: twice events_maxlen."),
    ] = None
    batch_messages: Annotated[
        int, Field(ge=1, le=5000, description="Messages claimed at once, so the largest batch. More: longer locks.")
    ] = 500
    wait_for_catalog: Annotated[
        Patience,
        NoDecode,
        BeforeValidator(read_patience),
        Field(
            description="Seconds that commands wait for a student or course that does not exist, where they do not say "
            "wait_until; of some sources others: 600,portal=3600,sis:nightly=0."
        ),
    ] = Patience()
    longest_wait: Annotated[
        float | None, Field(gt=0, description="Days that effective_at and wait_until may be ahead. None: no limit.")
    ] = None
    retention: Annotated[
        int | None,
        Field(ge=1, le=36_500, description="Days for which commands are kept. Older ones are refused. None: for ever."),
    ] = None
    visibility_timeout: Annotated[
        float, Field(ge=5, description="Seconds until the messages of a dead worker are claimed by another.")
    ] = 30
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_level)] = "INFO"
    log_format: Annotated[
        Literal["auto", "json", "console"], Field(description="auto: console on a terminal, else JSON lines.")
    ] = "auto"
    tracing: Annotated[
        bool, Field(description="Trace with OpenTelemetry, which reads variables of its own (OTEL_…) as well.")
    ] = False
    traceparent: Annotated[
        str | None, Field(validation_alias="TRACEPARENT", description="The trace of which a call of ours is a part.")
    ] = None
    metrics_port: Annotated[
        int | None,
        Field(ge=0, le=65435, description="Workers serve metrics on the first free port from here. 0: any. None: not."),
    ] = None
    metrics_host: Annotated[
        str, Field(min_length=1, description="Where workers and the exporter serve metrics: they name sources.")
    ] = "127.0.0.1"
    exporter_port: Annotated[int, Field(ge=0, le=65535, description="Of `enrollment exporter`. 0: a free one.")] = 9464
    in_files: Annotated[frozenset[str], Field(validation_alias=IN_FILES, description="Fields read from files.")] = (
        frozenset()
    )
    notify_socket: Annotated[str | None, Field(validation_alias="NOTIFY_SOCKET", description="Set by systemd.")] = None

    gateway_host: Annotated[str, Field(min_length=1, description="Where the gateway listens.")] = "127.0.0.1"
    gateway_port: Annotated[int, Field(ge=0, le=65535, description="0: a free one.")] = 8000
    gateway_keys: Annotated[
        tuple[ApiKey, ...],
        NoDecode,
        BeforeValidator(read_keys),
        AfterValidator(no_repeats),
        Field(description="Clients, as `enrollment gateway key` prints them. None: only this machine is answered."),
    ] = ()
    gateway_admins: Annotated[
        tuple[Admin, ...],
        NoDecode,
        BeforeValidator(read_admins),
        AfterValidator(no_repeats),
        Field(description="Administrators, as `enrollment gateway password` prints them. None: this machine only."),
    ] = ()
    gateway_secret: Annotated[
        SecretStr | None,
        Field(min_length=32, description="Signs the sessions of the admin page. None: they end with the process."),
    ] = None
    gateway_wait: Annotated[
        float, Field(ge=0, le=30, description="Seconds a write waits for its outcome where the client does not say.")
    ] = 5
    gateway_rate: Annotated[
        float, Field(ge=0, description="Requests per second of one client, at twice that in a burst. 0: no limit.")
    ] = 200
    gateway_max_body: Annotated[
        int, Field(ge=1024, description="Bytes of a request. 1,000 course ids take some 20 kB.")
    ] = 1024 * 1024

    @classmethod
    def load(cls) -> Self:
        """Read the environment. Raises SettingsError, in one sentence and without the value that is wrong."""
        try:
            return cls()
        except ValidationError as error:
            faults = [f"{_name(e['loc'])}: {e['msg']}" for e in error.errors()]
            raise SettingsError(f"A setting is wrong ({'; '.join(faults)}); correct the variable.") from None
        except SecretFileError as error:
            raise SettingsError(str(error)) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - there is no such file
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - these have one folder, and no variables
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read what the caller says, then variables, then the files that variables name (pydantic-settings' hook)."""
        variables = cast(EnvSettingsSource, env_settings).env_vars
        return init_settings, env_settings, SecretFiles(settings_cls, variables)

    def require_database_url(self) -> str:
        """Return the URL in SQLAlchemy's form. Raises SettingsError when it is missing or can never work."""
        from models.address import database_url  # noqa: PLC0415 - a producer does not pay for what reads it

        example = "postgresql://user:password@host:5432/name"
        return _require("ENROLLMENT_DATABASE_URL", self.database_url, database_url, example)

    def require_read_url(self) -> str:
        """Return the URL of the standbys. Raises SettingsError when it is missing or can never work."""
        from models.address import database_url  # noqa: PLC0415 - as above

        return _require("ENROLLMENT_READ_URL", self.read_url, database_url, "postgresql://user:password@host:5432/name")

    def require_broker_url(self) -> str:
        """Return the broker's URL. Raises SettingsError when it is missing or can never work."""
        return _require("ENROLLMENT_BROKER_URL", self.broker_url, broker_url, "redis://host:6379/0")

    def policy(self) -> Policy:
        """Return how long commands wait."""
        longest = None if self.longest_wait is None else timedelta(days=min(self.longest_wait, _LONGEST))
        seconds = {source: timedelta(seconds=number) for source, number in self.wait_for_catalog.by_source.items()}
        return Policy(timedelta(seconds=self.wait_for_catalog.seconds), seconds, longest)

    def transport_options(self) -> dict[str, Any]:
        """Return kombu's options that name the keys, as far as they were set, and the sentinels. Raises SettingsError.

        Where the address is in a file, they have a `credential_provider` (of redis-py) as well.
        """
        from enrollment.redis_client import transport_options as kombu_options  # noqa: PLC0415 - as in the next method

        if not is_redis(self.require_broker_url()):
            return {}
        keys = self.broker_options.model_dump(mode="json", exclude_unset=True)
        credentials = self._credentials("broker_url", Settings.require_broker_url)
        provider = {} if credentials is None else {"credential_provider": credentials}
        return {**keys, **kombu_options(self.require_broker_url()), **provider}

    def require_events_url(self) -> str:
        """Return the URL of the event stream's Redis: the broker's where none is set and the broker is Redis."""
        if self.events_url is None and is_redis(url := self.require_broker_url()):
            return url
        return _require("ENROLLMENT_EVENTS_URL", self.events_url, redis_url, "redis://host:6379/0")

    def database_address(self) -> Callable[[], str]:
        """Return what tells the database's URL for each new connection. Raises SettingsError, as the URL does."""
        url = self.require_database_url()
        newest = self._newest("database_url", Settings.require_database_url)
        return newest or (lambda: url)

    def read_address(self) -> Callable[[], str] | None:
        """Return what tells the standbys' URL for each new connection; None: lookups ask the primary."""
        if self.read_url is None:
            return None
        url = self.require_read_url()
        return self._newest("read_url", Settings.require_read_url) or (lambda: url)

    def events_credentials(self) -> NewestCredentials | None:
        """Return user and password of the event stream's Redis for each new connection; None: its URL has them."""
        field = "broker_url" if self.events_url is None else "events_url"
        return self._credentials(field, Settings.require_events_url)

    def _credentials(self, field: str, read: "Callable[[Settings], str]") -> NewestCredentials | None:
        newest = self._newest(field, read)
        return None if newest is None else NewestCredentials(newest)

    def _newest(self, field: str, read: "Callable[[Settings], str]") -> Newest | None:
        """Return what reads a field's file again; None where it was not in a file."""
        return Newest(lambda: read(Settings.load()), read(self)) if field in self.in_files else None


def _name(location: tuple[int | str, ...]) -> str:
    variable, *inner = map(str, location)
    return f"ENROLLMENT_{variable.upper()}{' ' if inner else ''}{'.'.join(inner)}"


def _require(name: str, secret: SecretStr | None, read: Callable[[str, str], str], example: str) -> str:
    url = secret.get_secret_value().strip() if secret is not None else ""
    if not url:
        raise SettingsError(f"{name} is not set; set it to an address such as {example}.")
    try:
        return read(url, name)
    except AddressError as error:
        raise SettingsError(str(error)) from None
