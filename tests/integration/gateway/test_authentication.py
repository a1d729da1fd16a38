"""Who may use the gateway, how much of it, and what it says of itself: no more than it must."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.authentication import Sessions, network_of
from tests.gateway import Backend, served
from worker.credentials import Admin, ApiKey, Scope
from worker.settings import Settings, SettingsError

READER, READER_KEY = ApiKey.create("dashboard", [Scope.READ])
WRITER, WRITER_KEY = ApiKey.create("portal", [Scope.READ, Scope.WRITE])


@pytest.fixture(scope="module")
def guarded_url(backend: Backend) -> Iterator[str]:
    settings = backend.settings(gateway_keys=(READER, WRITER), gateway_max_body=2000)
    with served(settings) as url:
        yield url


@pytest.fixture
def guarded(guarded_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded_url, timeout=20) as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("wrong"),
        {"Authorization": "Basic eDp5"},
        {"X-API-Key": WRITER.sha256},
        {"Authorization": "Bearer ключ".encode()},
    ],
)
def test_nothing_is_told_without_a_key(guarded: httpx.Client, headers: dict[str, Any]) -> None:
    for path in ("/students/1", "/metrics", "/events", "/nowhere"):
        answer = guarded.get(path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_the_scopes_are_kept(guarded: httpx.Client, backend: Backend) -> None:
    student = backend.new_student()
    assert guarded.get(f"/students/{student}", headers=bearer(READER_KEY)).status_code == 200
    answer = guarded.post(f"/students/{student}/courses", json={"course_id": 101}, headers=bearer(READER_KEY))
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    answer = guarded.post(f"/students/{student}/courses", json={"course_id": 101}, headers={"X-API-Key": WRITER_KEY})
    assert answer.json()["commands"][0]["source"] == "http/portal"


def test_health_and_the_description_are_open(guarded: httpx.Client) -> None:
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert guarded.get(path).status_code == 200


def test_the_same_idempotency_key_of_two_clients_is_two_commands(backend: Backend) -> None:
    other, other_key = ApiKey.create("batch", [Scope.WRITE])
    student = backend.new_student()
    with served(backend.settings(gateway_keys=(WRITER, other))) as url:
        found = {
            httpx.post(
                f"{url}/students/{student}/courses",
                json={"course_id": 101},
                headers={**bearer(key), "Idempotency-Key": "1"},
            ).json()["commands"][0]["command_id"]
            for key in (WRITER_KEY, other_key)
        }
    assert len(found) == 2


def test_a_client_that_asks_too_often_is_told_when_to_come_again(backend: Backend) -> None:
    settings = backend.settings(gateway_keys=(READER, WRITER), gateway_rate=0.05)
    with served(settings) as url, httpx.Client(base_url=url, timeout=20) as http:
        assert http.get("/students/1", headers=bearer(READER_KEY)).status_code == 200
        answer = http.get("/students/1", headers=bearer(READER_KEY))
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_requests")
        assert 0 < int(answer.headers["retry-after"]) <= 20
        assert http.get("/students/1", headers=bearer(WRITER_KEY)).status_code == 200
        assert [http.get("/students/1", headers=bearer("guess")).status_code for _ in range(2)] == [401, 429]


def test_the_open_addresses_are_limited_too_and_by_themselves(backend: Backend) -> None:
    settings = backend.settings(gateway_keys=(READER,), gateway_rate=0.05)
    with served(settings) as url, httpx.Client(base_url=url, timeout=20) as http:
        answers = [http.get(path) for path in ("/healthz", "/readyz", "/openapi.json")]
        assert [answer.status_code for answer in answers] == [200, 429, 429]
        assert answers[1].headers["content-type"] == "application/problem+json"
        assert 0 < int(answers[1].headers["retry-after"]) <= 20
        assert [http.get("/students/1", headers=bearer("guess")).status_code for _ in range(2)] == [401, 429]
        assert http.get("/students/1", headers=bearer(READER_KEY)).status_code == 200


def test_bodies_are_limited_in_size_and_form(guarded: httpx.Client) -> None:
    def post(**said: object) -> httpx.Response:
        return guarded.post("/students/1/courses", headers={**bearer(WRITER_KEY), **headers}, **said)  # type: ignore[arg-type]

    headers = {"Content-Type": "application/json"}
    assert post(content=b" " * 2001).json()["code"] == "content_too_large"
    assert post(content=iter([b" " * 1500] * 2)).json()["code"] == "content_too_large"
    assert post(content=b'{"course_id": ').json()["code"] == "invalid_command"
    assert post(content=b"[" * 1900).status_code in (400, 422)
    assert post(content=b'{"course_id": ' + b"9" * 1900 + b"}").status_code in (400, 422)
    assert post(content=b"\xff\xfe").status_code in (400, 422)
    headers = {"Content-Type": "text/plain"}
    assert post(content=b'{"course_id": 101}').json()["code"] == "unsupported_media_type"


def test_without_keys_other_names_than_localhost_are_refused(http: httpx.Client) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "10.0.0.1:8000", "["):
        assert http.get("/students/1", headers={"Host": host}).status_code in (400, 403)
    for host in ("localhost:8000", "127.0.0.1", "[::1]:80"):
        assert http.get("/students/1", headers={"Host": host}).status_code == 200


def test_every_error_of_an_address_is_a_problem(http: httpx.Client) -> None:
    for method, path, status, code in (
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/students/", 404, "not_found"),
        ("DELETE", "/students/1/courses", 405, "method_not_allowed"),
        ("GET", "/students/enroll", 405, "method_not_allowed"),
        ("BREW", "/students", 405, "method_not_allowed"),
        ("GET", "/students/one", 422, "invalid_request"),
        ("GET", "/students/1_0", 422, "invalid_request"),
        ("GET", f"/students/{2**63}", 422, "invalid_request"),
        ("GET", "/students?limit=1001", 422, "invalid_request"),
        ("GET", "/students?after=-1", 422, "invalid_request"),
        ("GET", "/commands/1", 422, "invalid_request"),
        ("DELETE", "/students/1/courses/%00", 422, "invalid_command"),
    ):
        answer = http.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (status, code), path
        assert answer.headers["content-type"] == "application/problem+json"
    assert http.delete("/students/1/courses").headers["allow"] == "GET, HEAD, POST, PUT, PATCH"


def test_head_is_get_without_the_body(http: httpx.Client) -> None:
    got, asked = http.get("/students/1"), http.head("/students/1")
    assert (asked.status_code, asked.content, asked.headers["etag"]) == (200, b"", got.headers["etag"])


def test_the_metrics_name_no_one(http: httpx.Client, backend: Backend) -> None:
    student = backend.new_student()
    http.post(f"/students/{student}/courses", json={"course_id": 101})
    http.request("BREW", f"/students/{student}")
    metrics = http.get("/metrics").text
    assert 'requests_total{method="POST",route="/students/{student_id}/courses",status="200"}' in metrics
    assert 'commands_sent_total{command="enroll"}' in metrics
    assert "enrollment_gateway_event_stream_connected 1.0" in metrics
    assert "BREW" not in metrics
    assert f"/students/{student}" not in metrics


@pytest.mark.parametrize(
    "keys", ["portal", "portal:admin:00", "portal:read:0000", "[{}]", "[", f"a:read:{'0' * 64} a:write:{'0' * 64}"]
)
def test_keys_that_cannot_be_read_are_one_sentence_without_their_value(
    monkeypatch: pytest.MonkeyPatch, keys: str
) -> None:
    monkeypatch.setenv("ENROLLMENT_GATEWAY_KEYS", keys)
    with pytest.raises(SettingsError, match="ENROLLMENT_GATEWAY_KEYS") as refused:
        Settings.load()
    assert "0000" not in str(refused.value)


def test_settings_hold_what_the_command_line_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENROLLMENT_GATEWAY_KEYS", f" {READER.setting()},\n{WRITER.setting()} ")
    assert Settings.load().gateway_keys == (READER, WRITER)
    monkeypatch.setenv("ENROLLMENT_GATEWAY_KEYS", f"[{READER.model_dump_json()}]")
    assert Settings.load().gateway_keys == (READER,)
    admin = Admin.create("ada", "correct horse")
    monkeypatch.setenv("ENROLLMENT_GATEWAY_ADMINS", admin.setting())
    assert Settings.load().gateway_admins == (admin,)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"),
        ("2001:db8:0:1::", "2001:db8:0:1::/64"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
        ("", ""),
    ],
)
def test_an_ipv6_network_counts_as_one_address(address: str, network: str) -> None:
    assert network_of(address) == network


def test_a_session_is_known_by_its_signature_and_ends() -> None:
    now = 1_000_000.0
    sessions = Sessions([Admin.create("ada", "correct horse")], "s" * 32, now=lambda: now)
    assert sessions.log_in("ada", "wrong") is None
    assert sessions.log_in("eve", "correct horse") is None
    session = sessions.log_in("ada", "correct horse")
    assert session is not None
    cookie = sessions.cookie_of(session)
    assert sessions.session_of(cookie) == session
    assert session.has_csrf(session.csrf)
    assert not session.has_csrf("")
    for forged in (None, "", ".", cookie[:-1], cookie + "0", f"x{cookie}", "é.é"):
        assert sessions.session_of(forged) is None
    assert Sessions([Admin.create("ada", "correct horse")], "t" * 32, now=lambda: now).session_of(cookie) is None
    assert Sessions([], "s" * 32, now=lambda: now).session_of(cookie) is None
    now += 9 * 60 * 60
    assert sessions.session_of(cookie) is None
