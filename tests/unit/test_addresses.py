"""What the manuals of Celery, kombu, redis-py, SQLAlchemy and libpq write as an address, and what it means here."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from enrollment.addresses import kombu_url
from enrollment.client import Client
from models.address import parameters
from worker.settings import Settings, SettingsError

SECRET = "hunter2"


def read(kind: str, url: str) -> Any:
    settings = Settings.model_validate({f"{kind}_url": SecretStr(url)})
    return getattr(settings, f"require_{kind}_url")()


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("redis://host?db=3", "redis://host/3"),
        ("redis://host/3?db=3", "redis://host/3"),
        ("redis://host/3/", "redis://host/3"),
        ("redis:///3", "redis:///3"),
        ("redis://user:p%40%3A%2F%25@[::1]:6379/0", "redis://user:p%40%3A%2F%25@[::1]:6379/0"),
        ("redis://:p@ss@host/0", "redis://:p@ss@host/0"),
        ("redis://host/0\n", "redis://host/0"),
        ("rediss://host", "rediss://host?ssl_cert_reqs=required&ssl_check_hostname=true"),
        (
            "rediss://host/1?ssl_cert_reqs=CERT_NONE&ssl_check_hostname=False",
            "rediss://host/1?ssl_cert_reqs=none&ssl_check_hostname=false",
        ),
        ("rediss://host?ssl_cert_reqs=optional", "rediss://host?ssl_cert_reqs=optional&ssl_check_hostname=true"),
        ("redis://host/1?replicas=1", "redis://host/1?replicas=1"),
        ("sentinel://a", "sentinel://a:26379?master_name=mymaster&replicas=1"),
        ("sentinel://:p%2C@a:1,b,[::1]:3/2", "sentinel://:p%2C@a:1,b:26379,[::1]:3/2?master_name=mymaster&replicas=1"),
        (
            "sentinel://:p@a;sentinel://b:2;sentinel://c/1?master_name=school&replicas=2&sentinel_password=x",
            "sentinel://:p@a:26379,b:2,c:26379/1?master_name=school&replicas=2&sentinel_password=x",
        ),
        ("sentinel://:p@a/1;sentinel://:p@b/1", "sentinel://:p@a:26379,b:26379/1?master_name=mymaster&replicas=1"),
        (
            "sentinels://a,b?ssl_cert_reqs=CERT_NONE",
            "sentinels://a:26379,b:26379?master_name=mymaster&replicas=1&ssl_cert_reqs=none&ssl_check_hostname=true",
        ),
    ],
)
def test_an_address_of_redis_means_the_same_in_every_spelling(said: str, meant: str) -> None:
    assert read("broker", said) == read("events", said) == read("broker", meant) == meant


def test_nodes_of_rabbitmq_are_a_list() -> None:
    assert read("broker", "amqp://u:p%3B@a//; amqp://u:p%3B@b:77/v") == "amqp://u:p%3B@a//;amqp://u:p%3B@b:77/v"
    assert read("broker", "amqp:///v") == "amqp:///v"
    tls = "?ssl_cert_reqs=required&ssl_check_hostname=true"
    assert read("broker", "amqps://a//;amqps://b?ssl_cert_reqs=CERT_REQUIRED") == f"amqps://a//{tls};amqps://b{tls}"


def test_kombu_is_told_of_each_sentinel_with_all_that_it_needs_to_go_on_there() -> None:
    url = read("broker", "sentinels://:p@a,b/1?master_name=school&sentinel_password=x&ssl_cert_reqs=none")
    tls = "?ssl_cert_reqs=none&ssl_check_hostname=true"
    assert kombu_url(url) == f"sentinel://:p@a:26379/1{tls};sentinel://:p@b:26379/1{tls}"
    options = Settings.model_validate({"broker_url": SecretStr(url)}).transport_options()
    assert options["master_name"] == "school"
    told = {"password": "x", "ssl": True, "ssl_cert_reqs": "none", "ssl_check_hostname": True}
    assert options["sentinel_kwargs"].items() >= told.items()


@pytest.mark.parametrize(
    ("kind", "url", "sentence"),
    [
        ("broker", f"redis://:{SECRET}@h/2?db=3", "has a database that is no number, or two"),
        ("broker", f"redis://:{SECRET}@h/x", "has a database that is no number"),
        ("broker", f"redis://:{SECRET}@h:99999", "cannot be read: a port is"),
        ("broker", f"redis://:{SECRET}@h:0", "cannot be read: a port is"),
        ("broker", f"redis://:{SECRET}@a:1,b:2/0", "a Redis has one host"),
        ("broker", f"redis://:{SECRET}@a;redis://b", "a Redis has one host"),
        *(("broker", f"redis://:{SECRET}{it}x@h/0", f"%{ord(it):X}") for it in "/#?"),
        ("broker", f"redis://:1?{SECRET}=x@h/0", "in a password"),
        ("broker", f"redis://:{SECRET}@h/0?socket_timeout=3", "has the option socket_timeout; take it out"),
        ("broker", f"redis://:{SECRET}@h/0?virtual_host=3", "has the option virtual_host; take it out"),
        ("broker", f"redis://:{SECRET}@h/0?ssl_cert_reqs=none", "the option ssl_cert_reqs; start it with rediss://"),
        ("broker", f"rediss://:{SECRET}@h?ssl_min_version=TLSv1", "has the option ssl_min_version; take it out"),
        ("broker", f"rediss://:{SECRET}@h?ssl_cert_reqs={SECRET}", "CERT_REQUIRED, CERT_OPTIONAL or CERT_NONE"),
        ("broker", f"rediss://:{SECRET}@h?ssl_check_hostname={SECRET}", "true or false"),
        ("broker", f"rediss://:{SECRET}@h?ssl_ca_certs=/nowhere", "/nowhere: No such file or directory"),
        ("broker", f"rediss://:{SECRET}@h?ssl_ca_certs={__file__}", "cannot be used"),
        ("broker", f"rediss://:{SECRET}@h?ssl_keyfile={__file__}", "cannot be used"),
        ("broker", f"rediss://:{SECRET}@h?ssl_ciphers={SECRET}", "cannot be used"),
        ("broker", f"sentinel://:{SECRET}@a,,b", "names a sentinel without a host"),
        ("broker", f"sentinel://:{SECRET}@a:70000", "or with a wrong port"),
        ("broker", f"sentinel://:{SECRET}@a;sentinel://:other@b", "has two passwords or two databases"),
        ("broker", f"sentinel://:{SECRET}@a/1;sentinel://b/2", "has two passwords or two databases"),
        ("broker", f"sentinel://:{SECRET}@a?ssl_cert_reqs=none", "start it with sentinels://"),
        ("broker", f"sentinel://:{SECRET}@a?master=x", "has the option master; take it out"),
        ("broker", f"sentinel://:{SECRET}@a?master_name=", "has an empty master_name"),
        ("broker", f"sentinel://:{SECRET}@a,:{SECRET}@b", "cannot be read"),
        ("broker", f"redis://:{SECRET}@h?replicas=many", "a wrong value of replicas"),
        *(("events", f"sentinel://:{SECRET}{it}x@h", f"%{ord(it):X}") for it in "/#?;"),
        ("broker", f"redis+socket://:{SECRET}@/tmp/redis.sock", "must start with redis:// or rediss://"),
        ("broker", f"unix://:{SECRET}@/tmp/redis.sock?db=2", "must start with redis:// or rediss://"),
        ("broker", f"amqp://u:{SECRET}@a;amqps://u:{SECRET}@b", "must start with amqp://"),
        ("broker", f"amqp://u:{SECRET}@a;", "must start with amqp://"),
        ("broker", f"amqp://u:{SECRET}@a;redis://b", "must start with amqp://"),
        ("broker", f"amqp://u:{SECRET};x@a", "%3B"),
        ("broker", f"amqp://u:{SECRET}@a//?hartbeat=5", "has the option hartbeat; take it out"),
        ("broker", f"amqp://u:{SECRET}@a//;amqp://u:{SECRET}@b//?heartbeat=x", "a wrong value of heartbeat"),
        ("broker", f"amqp://u:{SECRET}/x@a", "%2F"),
        ("broker", f"amqp://u:{SECRET}@a//?ssl_ca_certs=x", "the option ssl_ca_certs; start it with amqps://"),
        ("broker", f"amqps://u:{SECRET}@a//?ssl_password={SECRET}", "has the option ssl_password; take it out"),
        ("broker", f"amqps://u:{SECRET}@a;amqps://u:{SECRET}@b?ssl_ca_certs=/no", "/no: No such file"),
        ("broker", f"amqp://u:{SECRET}@a:0", "cannot be read: a port is"),
        ("broker", f'"redis://:{SECRET}@h/0"', "without quotes"),
        ("events", f"amqp://u:{SECRET}@h", "must start with redis:// or rediss://"),
        ("database", f"postgresql+psycopg2://u:{SECRET}@h/d", "must start with postgresql://"),
        ("database", f"postgresql+asyncpg://u:{SECRET}@h/d", "must start with postgresql://"),
        ("database", f"host=h dbname=d password={SECRET}", "must start with postgresql://"),
        *(("database", f"postgresql://u:{SECRET}{it}x@h/d", f"%{ord(it):X}") for it in "@/#?"),
        ("database", f"postgresql://u:1/{SECRET}@h/d", "in a password"),
        ("database", f"postgresql://u:{SECRET}%zz@h/d", "cannot be read by libpq"),
        ("database", f"postgresql://u:{SECRET}@[::1/d", "cannot be read"),
        ("database", f"postgresql://u:{SECRET}@h:99999/d", "invalid port number"),
        ("database", f"postgresql://u:{SECRET}@h/d?prepare_threshold=0", "libpq does not know: prepare_threshold"),
        ("database", f"postgresql://u:{SECRET}@h/d?ssl=true", "libpq does not know: ssl"),
        ("database", f"postgresql://u:{SECRET}@h/d?sslmode=Require", "invalid sslmode value"),
        ("database", f"postgresql://u:{SECRET}@h/d?target_session_attrs=rw", "invalid target_session_attrs value"),
        ("database", f"postgresql://u:{SECRET}@h/d?connect_timeout={SECRET}", "connect_timeout that is no number"),
        ("database", f"postgresql://u:{SECRET}@h/d?service=nowhere", "definition of service"),
        ("database", f"postgresql://u:{SECRET}@a,b,c/d?port=1,2", "could not match 2 port numbers to 3 hosts"),
        ("database", f"postgresql://u:{SECRET}@h/d?sslrootcert=/nowhere", "/nowhere: No such file or directory"),
    ],
)
def test_an_address_that_can_never_work_is_one_sentence_that_names_the_variable(
    kind: str, url: str, sentence: str
) -> None:
    with pytest.raises(SettingsError, match=sentence) as caught:
        read(kind, url)
    assert str(caught.value).startswith(f"ENROLLMENT_{kind.upper()}_URL ")
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_with_a_password_is_not_asked_for_on_the_terminal(tmp_path: Path) -> None:
    lines = ("-----BEGIN ENCRYPTED PRIVATE KEY-----", "AAAA", "-----END ENCRYPTED PRIVATE KEY-----")
    (tmp_path / "key.pem").write_text("\n".join(lines))
    with pytest.raises(SettingsError, match="cannot be used"):
        read("broker", f"rediss://h?ssl_certfile={tmp_path / 'key.pem'}")


def test_a_producer_is_told_of_such_an_address_when_it_is_made() -> None:
    with pytest.raises(Exception, match=r"^The broker's address has the option socket_timeout"):
        Client("redis://h/0?socket_timeout=3")


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("postgresql://u:p%40%3A%2F%25@h:5433/d", {"user": "u", "password": "p@:/%", "host": "h", "port": "5433"}),
        ("postgres://[::1]:5433/d", {"host": "::1", "port": "5433"}),
        ("postgresql+psycopg://a:1,b:2/d?target_session_attrs=read-write", {"host": "a,b", "port": "1,2"}),
        ("postgresql:///d?host=a:1&host=b:2", {"host": "a,b", "port": "1,2"}),
        ("postgresql:///d?host=a&host=[::1]:2", {"host": "a,::1", "port": ",2"}),
        ("postgresql:///d?host=/var/run/postgresql", {"host": "/var/run/postgresql"}),
        ("postgresql://%2Fvar%2Frun%2Fpostgresql/d", {"host": "/var/run/postgresql"}),
        ("postgresql://h/d?options=-csearch_path=school", {"options": "-csearch_path=school"}),
        ("postgresql://h/d?options=-c%20search_path%3Dschool", {"options": "-c search_path=school"}),
        ("postgresql:///d?service=x&passfile=/y", {"service": "x", "passfile": "/y"}),
    ],
)
def test_an_address_of_postgresql_is_read_as_libpq_and_sqlalchemy_spell_it(url: str, meant: dict[str, str]) -> None:
    assert parameters(url) | {"dbname": "d"} | meant == parameters(url)


@pytest.mark.parametrize(("said", "meant"), [("info", "INFO"), (" Warning\n", "WARNING"), ("", "INFO")])
def test_a_log_level_is_taken_as_celery_takes_it(monkeypatch: pytest.MonkeyPatch, said: str, meant: str) -> None:
    monkeypatch.setenv("ENROLLMENT_LOG_LEVEL", said)
    assert Settings.load().log_level == meant


def test_what_is_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENROLLMENT_BROKER_URL", "redis://broker")
    monkeypatch.setenv("ENROLLMENT_EVENTS_URL", "")
    assert Settings.load().require_events_url() == "redis://broker"
