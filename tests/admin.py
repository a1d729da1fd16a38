"""The admin page for the tests: served over the gateway's backend, asked with httpx and looked at with Chromium."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from uuid import uuid4

import httpx
import pytest
from celery import Celery
from sqlalchemy import text

from tests.eventually import eventually
from tests.gateway import Backend, served
from tests.tools import do_without
from worker.credentials import Admin

NAME, PASSWORD = "ana", "correct horse"
HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)> & Söhne"
LONG = "Wolfeschlegelsteinhausenbergerdorff" * 6
MANY = range(7000, 7500)
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# That an answer was a refusal, or that there was none, is no fault of a page.
NO_FAULTS = ("Failed to load resource", "htmx:sendError", "htmx:afterRequest")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass(frozen=True)
class Extremes:
    """Students at the edges of what pages can show."""

    hostile: int = 9001
    long: int = 9002
    nameless: int = 9003
    many: int = 9004  # is in all of MANY


@pytest.fixture(scope="session")
def admin_url(backend: Backend) -> Iterator[str]:
    """Give the address of a gateway with one administrator."""
    with served(backend.settings(gateway_admins=(Admin.create(NAME, PASSWORD),))) as url:
        yield url


@pytest.fixture(scope="session")
def cookie(admin_url: str) -> str:
    """Give the cookie of someone who has logged in."""
    with httpx.Client(base_url=admin_url, timeout=20) as client:
        assert log_in(client).status_code == 303
        return client.cookies["enrollment_session"]


@pytest.fixture
def visitor(admin_url: str) -> Iterator[httpx.Client]:
    """Give someone who is not logged in."""
    with httpx.Client(base_url=admin_url, timeout=20) as client:
        yield client


@pytest.fixture
def admin(visitor: httpx.Client, cookie: str) -> httpx.Client:
    """Give someone who is."""
    visitor.cookies.set("enrollment_session", cookie)
    return visitor


def log_in(client: httpx.Client, password: str = PASSWORD, **more: str) -> httpx.Response:
    token = field(client.get("/admin/login").text, "login_csrf")
    form = {"login_csrf": token, "name": NAME, "password": password} | more
    return client.post("/admin/login", data=form)


def field(page: str, name: str) -> str:
    """Return the value of a form's field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found, page
    return unescape(found[1])


def submit(client: httpx.Client, page: str, address: str, **said: Any) -> httpx.Response:
    """Send a form of a page, as a browser without scripts does."""
    shown = client.get(page).text
    form = {"csrf": field(shown, "csrf"), **said}
    if 'name="had"' in shown:
        form.setdefault("had", field(shown, "had"))
    return client.post(address, data=form)


@pytest.fixture
def extremes(backend: Backend) -> Iterator[Extremes]:
    """Put extremes into the catalog for one test."""
    it = Extremes()
    with backend.engine.begin() as connection:
        for id_, name in ((it.hostile, HOSTILE), (it.long, LONG), (it.nameless, ""), (it.many, "Very Many Courses")):
            connection.execute(text("INSERT INTO students (id, name) VALUES (:id, :name)"), {"id": id_, "name": name})
        values = {"first": MANY[0], "last": MANY[-1], "student": it.many, "title": HOSTILE, "sis": HOSTILE}
        connection.execute(
            text("""
                INSERT INTO courses (id, code, title, sis_id) SELECT g, 'GEN-' || g, :title, :sis || g
                  FROM generate_series(CAST(:first AS bigint), :last) g
            """),
            values,
        )
        connection.execute(
            text("""
                INSERT INTO student_courses (student_id, course_id)
                SELECT :student, g FROM generate_series(CAST(:first AS bigint), :last) g
            """),
            values,
        )
    yield it
    with backend.engine.begin() as connection:
        connection.execute(text("DELETE FROM student_courses WHERE student_id > 9000 OR course_id >= 7000"))
        connection.execute(text("DELETE FROM students WHERE id > 9000"))
        connection.execute(text("DELETE FROM courses WHERE id >= 7000"))


@pytest.fixture
def dead_letter(backend: Backend) -> Callable[..., int]:
    """Give a function that sends a message that is no valid command, and returns its dead letter's id."""

    def send(task: str = "enrollment.enroll.v1", **arguments: Any) -> int:
        task_id = str(uuid4())
        app = Celery(broker=backend.redis.url, set_as_current=False)
        with app.connection_for_write() as connection, connection.channel() as channel:
            producer = app.amqp.Producer(channel, auto_declare=False)
            app.send_task(task, kwargs=arguments, task_id=task_id, queue="enrollment", producer=producer)
        app.close()

        def look() -> int | None:
            with backend.engine.connect() as database:
                statement = text(
                    "SELECT id FROM dead_letters WHERE headers LIKE :id OR command_id = CAST(:own AS uuid)"
                )
                found: int | None = database.scalar(statement, {"id": f"%{task_id}%", "own": task_id})
                return found

        return eventually(look) or 0

    return send


@pytest.fixture
def courses_of(backend: Backend) -> Callable[[int], list[int]]:
    def look(student_id: int) -> list[int]:
        with backend.engine.connect() as connection:
            statement = text("SELECT course_id FROM student_courses WHERE student_id = :id ORDER BY course_id")
            return list(connection.scalars(statement, {"id": student_id}))

    return look


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Give a browser. Playwright keeps an event loop running, which tests of other modules must not meet."""
    path = next((found for name in CHROMIUMS if (found := shutil.which(name))), None)
    if path is None:
        do_without("There is no Chromium on the PATH to look at the admin page with; install one: apt install chromium")
    if find_spec("playwright") is None:
        do_without("The driver of the browser is not installed: pip install playwright")
    playwright = import_module("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def opened(chromium: Any, url: str, *, width: int = 1280, scheme: str = "light") -> Iterator[Any]:
    """Open a window of someone who is not logged in. What the console complains of fails the test."""
    viewport = {"width": width, "height": 800}
    context = chromium.new_context(base_url=url, viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
    context.set_default_timeout(30_000)  # milliseconds
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda it: complaints.append(it.text) if it.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert [it for it in complaints if not it.startswith(NO_FAULTS)] == []


def enter(page: Any) -> None:
    """Log in, with the keyboard."""
    page.goto("/admin/students")
    page.locator("[name=name]:focus").wait_for()  # the focus is set after the page is shown
    page.keyboard.type(NAME)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("navigation", name="Main").wait_for()


@pytest.fixture
def page(chromium: Any, admin_url: str, cookie: str) -> Iterator[Any]:
    """Give the window of someone who is logged in."""
    with opened(chromium, admin_url) as window:
        window.context.add_cookies([{"name": "enrollment_session", "value": cookie, "url": admin_url}])
        yield window


def commands(backend: Backend) -> int:
    with backend.engine.connect() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM commands")) or 0)
