from pathlib import Path

import pytest
from redis import Redis

from models.engine import make_engine
from worker.secret_files import renewing
from worker.settings import Settings, SettingsError

SECRET = "hunter2"


def test_every_setting_can_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"ENROLLMENT_{name.upper()}", raising=False)
    for name, value in {
        "DATABASE_URL": "postgresql://u:p@h/d\n",
        "BROKER_URL": " redis://:p@broker ",
        "GATEWAY_SECRET": "x" * 32,
        "GATEWAY_KEYS": f"portal:read+write:{'0' * 64}\nother:read:{'1' * 64}\n",
        "BATCH_MESSAGES": "7",
    }.items():
        (tmp_path / name).write_text(value)
        monkeypatch.setenv(f"ENROLLMENT_{name}_FILE", str(tmp_path / name))
    settings = Settings.load()
    assert settings.require_database_url() == "postgresql+psycopg://u:p@h/d"
    assert settings.require_broker_url() == settings.require_events_url() == "redis://:p@broker"
    assert [key.name for key in settings.gateway_keys] == ["portal", "other"]
    assert settings.batch_messages == 7


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"names \S+, which cannot be read \(No such file or directory\); see that"),
        (b"\xff" + SECRET.encode(), r"names \S+, which cannot be read \(it is not UTF-8\); see that"),
        (b" \n", r"names \S+, which is empty; write"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence_without_its_content(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    monkeypatch.delenv("ENROLLMENT_DATABASE_URL", raising=False)
    monkeypatch.setenv("ENROLLMENT_DATABASE_URL_FILE", str(tmp_path / "secret"))
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    with pytest.raises(SettingsError, match=rf"^ENROLLMENT_DATABASE_URL_FILE {sentence}[^\n]*$") as it:
        Settings.load()
    assert SECRET not in str(it.value)


def test_a_variable_and_its_file_are_not_both_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("redis://broker")
    monkeypatch.setenv("ENROLLMENT_BROKER_URL", "redis://broker")
    monkeypatch.setenv("ENROLLMENT_BROKER_URL_FILE", str(tmp_path / "secret"))
    with pytest.raises(SettingsError, match=r"^ENROLLMENT_BROKER_URL and ENROLLMENT_BROKER_URL_FILE are both set"):
        Settings.load()


def test_what_is_asked_for_credentials_reads_the_file_again_and_keeps_the_last_that_could_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ENROLLMENT_BROKER_URL", raising=False)
    monkeypatch.setenv("ENROLLMENT_BROKER_URL_FILE", str(tmp_path / "broker"))
    (tmp_path / "broker").write_text("redis://:a%2Fb@broker:1/2")
    settings = Settings.load()
    credentials = settings.events_credentials()
    assert credentials is not None
    assert credentials.get_credentials() == ("a/b",)
    (tmp_path / "broker").write_text("redis://worker:c@broker:1/2")
    assert credentials.get_credentials() == ("worker", "c")
    assert settings.transport_options()["credential_provider"].get_credentials() == ("worker", "c")
    (tmp_path / "broker").unlink()
    assert credentials.get_credentials() == ("worker", "c")
    known = Redis.from_url(**renewing(settings.require_broker_url(), credentials)).get_connection_kwargs()
    assert (known["host"], known["port"], known["db"], known.get("password")) == ("broker", 1, 2, None)


def test_an_address_that_is_in_no_file_has_its_own_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENROLLMENT_BROKER_URL", "redis://:a@broker")
    settings = Settings.load()
    assert settings.events_credentials() is None
    assert "credential_provider" not in settings.transport_options()


def test_a_database_whose_address_cannot_be_read_at_first_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENROLLMENT_DATABASE_URL", raising=False)
    with pytest.raises(SettingsError, match="ENROLLMENT_DATABASE_URL is not set"):
        make_engine(Settings.load().database_address(), application_name="test")
