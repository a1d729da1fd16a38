"""Whoever guesses waits, whoever logs out is out, and what is refused before the pages is a page too."""

import re

import httpx
from pydantic import SecretStr

from enrollment.client import Client
from gateway.admin.session import ATTEMPTS, NAME_ATTEMPTS
from tests.admin import NAME, PASSWORD, field, log_in
from tests.gateway import Backend, served
from worker.credentials import Admin, ApiKey, Scope

ENDED = "{enrollment.events}:gateway:ended:*"


def test_whoever_guesses_has_to_wait(backend: Backend) -> None:
    settings = backend.settings(gateway_admins=(Admin.create(NAME, PASSWORD),))
    with served(settings) as url, httpx.Client(base_url=url, timeout=20) as client:
        assert [log_in(client, "wrong").status_code for _ in range(ATTEMPTS)] == [403] * ATTEMPTS
        answer = log_in(client)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0


def from_address(client: httpx.Client, address: str, name: str) -> int:
    client.headers["x-forwarded-for"] = address  # believed from this machine alone
    client.cookies.clear()
    return log_in(client, "wrong", name=name).status_code


def test_whoever_guesses_from_many_addresses_has_to_wait_too(backend: Backend) -> None:
    client_of_api, _ = ApiKey.create("portal", [Scope.READ])  # else this machine alone is answered
    settings = backend.settings(gateway_admins=(Admin.create(NAME, PASSWORD),), gateway_keys=(client_of_api,))
    with served(settings) as url, httpx.Client(base_url=url, timeout=20) as client:
        in_one_network = [from_address(client, f"2001:db8::{n}", f"someone{n}") for n in range(ATTEMPTS + 1)]
        assert in_one_network == [403] * ATTEMPTS + [429]
        assert from_address(client, "2001:db8:0:1::", "someone") == 403
        by_one_name = [from_address(client, f"192.0.2.{n}", NAME) for n in range(NAME_ATTEMPTS + 1)]
        assert by_one_name == [403] * NAME_ATTEMPTS + [429]
        assert from_address(client, "192.0.2.200", "someone else") == 403


def test_who_logs_out_ends_every_copy_of_the_cookie_at_every_gateway(backend: Backend) -> None:
    settings = backend.settings(gateway_admins=(Admin.create(NAME, PASSWORD),), gateway_secret=SecretStr("s" * 32))
    with backend.client() as redis:
        before = set(redis.scan_iter(ENDED))
    with (
        served(settings) as one,
        served(settings) as other,
        httpx.Client(base_url=one, timeout=20) as client,
        httpx.Client(base_url=other, timeout=20) as thief,
    ):
        log_in(client)
        thief.cookies.set("enrollment_session", client.cookies["enrollment_session"])
        page = thief.get("/admin/students")
        assert page.status_code == 200
        with thief.stream("GET", "/admin/events/stream") as watched:
            lines = watched.iter_lines()
            assert next(lines) == "retry: 2000"
            assert client.post("/admin/logout", data={"csrf": field(page.text, "csrf")}).status_code == 303
            with Client(backend.redis.url) as sender:
                sender.enroll(backend.new_student(), [101])
            assert [line for line in lines if line.startswith("data:")] == []
        assert thief.get("/admin/students").status_code == 303
        assert log_in(client).status_code == 303  # and another session is another
        assert client.get("/admin/students").status_code == 200
    with backend.client() as redis:
        [key] = set(redis.scan_iter(ENDED)) - before
        assert 0 < redis.ttl(key) <= 8 * 60 * 60 + 300
        redis.delete(key)


def test_errors_from_before_the_pages_are_pages(backend: Backend) -> None:
    settings = backend.settings(gateway_rate=1, gateway_max_body=2000)
    with served(settings) as url, httpx.Client(base_url=url, timeout=20) as client:

        def told(answer: httpx.Response, status: int, title: str) -> None:
            assert answer.status_code == status
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert f"<h1>{title}</h1>" in answer.text

        told(client.post("/admin/students/1/courses", content=b" " * 2001), 413, "Too much at once")
        answer = client.put("/admin/students")
        told(answer, 405, "Method not allowed")
        assert answer.headers["allow"] == "GET, HEAD"

        def one_too_many(**headers: str) -> httpx.Response:
            """Ask until it is too often: on a busy machine the second request may be in time."""
            asked = iter(lambda: client.get("/admin/students", headers=headers), None)
            return next(answer for answer in asked if answer.status_code == 429)

        answer = one_too_many()
        told(answer, 429, "Too many requests")
        assert int(answer.headers["retry-after"]) >= 1
        style = re.search(r'href="(/admin/static/[^"]*css)"', answer.text)
        assert style
        assert client.get(style[1]).status_code == 200
        answer = one_too_many(**{"hx-request": "true"})
        assert "<html" not in answer.text
        assert "Too many requests." in answer.text
