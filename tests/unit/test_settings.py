import importlib
import sys
from datetime import timedelta

import pytest
from celery.app.defaults import NAMESPACES, flatten

from worker.settings import Settings, SettingsError

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "BROKER_URL", "EVENTS_URL", "EVENTS_STREAM", "BATCH_MESSAGES"):
        monkeypatch.delenv(f"ENROLLMENT_{name}", raising=False)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg", "postgres"])
def test_a_database_url_is_taken_in_every_usual_form(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("ENROLLMENT_DATABASE_URL", f"{scheme}://u:p@h/d")
    assert Settings.load().require_database_url() == "postgresql+psycopg://u:p@h/d"


@pytest.mark.parametrize("value", ["", " ", "sqlite:///x", f"mysql://u:{SECRET}@h", "postgresql://", SECRET])
def test_a_wrong_database_url_is_one_sentence_without_the_secret(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ENROLLMENT_DATABASE_URL", value)
    with pytest.raises(
        SettingsError, match=r"^ENROLLMENT_DATABASE_URL [^\n]*such as|^ENROLLMENT_DATABASE_URL must"
    ) as it:
        Settings.load().require_database_url()
    assert SECRET not in str(it.value)


def test_a_wrong_number_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENROLLMENT_BATCH_MESSAGES", SECRET)
    with pytest.raises(SettingsError, match="ENROLLMENT_BATCH_MESSAGES") as it:
        Settings.load()
    assert SECRET not in str(it.value)


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENROLLMENT_BROKER_URL", f"redis://:{SECRET}@h")
    settings = Settings.load()
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump_json()}"


def test_events_go_to_the_broker_unless_it_is_not_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENROLLMENT_BROKER_URL", "redis://broker")
    assert Settings.load().require_events_url() == "redis://broker"
    monkeypatch.setenv("ENROLLMENT_EVENTS_URL", "rediss://events")
    assert Settings.load().require_events_url() == "rediss://events?ssl_cert_reqs=required&ssl_check_hostname=true"
    monkeypatch.delenv("ENROLLMENT_EVENTS_URL")
    monkeypatch.setenv("ENROLLMENT_BROKER_URL", "amqp://broker")
    with pytest.raises(SettingsError, match="ENROLLMENT_EVENTS_URL is not set"):
        Settings.load().require_events_url()


def test_celery_knows_every_name_in_celeryconfig(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery takes a misspelt setting without a word."""
    monkeypatch.setenv("ENROLLMENT_BROKER_URL", "redis://broker")
    monkeypatch.delitem(sys.modules, "celeryconfig", raising=False)
    config = importlib.import_module("celeryconfig")
    known = {entry[0] for entry in flatten(NAMESPACES)}
    assert {name for name in vars(config) if not name.startswith("_")} <= known


def test_how_long_commands_wait_is_said_once_and_for_some_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENROLLMENT_WAIT_FOR_CATALOG", "600, portal=3600,sis:nightly=0")
    monkeypatch.setenv("ENROLLMENT_LONGEST_WAIT", "365")
    policy = Settings.load().policy()
    assert (policy.patience.seconds, policy.by_source["portal"].seconds) == (600, 3600)
    assert policy.by_source["sis:nightly"] == timedelta(0)
    assert policy.longest == timedelta(days=365)


@pytest.mark.parametrize("value", ["soon", "1,2", "portal=1,portal=2", "a b=1", "-1"])
def test_a_patience_that_cannot_be_read_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ENROLLMENT_WAIT_FOR_CATALOG", value)
    with pytest.raises(SettingsError, match="ENROLLMENT_WAIT_FOR_CATALOG"):
        Settings.load()
