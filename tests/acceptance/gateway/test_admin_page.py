from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]

from enrollment.client import Client
from tests.admin import HOSTILE, LONG, MANY, Extremes, enter, opened
from tests.eventually import eventually
from tests.gateway import Backend

Courses = Callable[[int], list[int]]
# axe takes seconds for hundreds of rows that are all alike.
UNSETTLED = "#save.htmx-request, .htmx-added, .htmx-settling"
SHORTEN = "document.querySelectorAll('.rows > li:nth-child(n + 8)').forEach((it) => it.remove())"


def focused(page: Any) -> str:
    return str(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))


def test_someone_enrolls_a_student_by_keyboard_alone(
    chromium: Any, admin_url: str, backend: Backend, courses_of: Courses
) -> None:
    student = backend.new_student()
    with opened(chromium, admin_url) as page:
        enter(page)
        page.locator("#q:focus").wait_for()
        page.keyboard.type(f"S{student}")
        found = page.get_by_role("link", name=f"S{student}", exact=True)
        found.wait_for()
        while focused(page) != f"S{student}":
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/students/{student}")
        page.locator("#course-q").focus()
        page.keyboard.type("C105")
        page.locator("#offered").get_by_text("1 found").wait_for()
        for key in ("Tab", "Tab", "Space"):  # past the button that finds, onto the box
            page.keyboard.press(key)
        assert page.locator("#changes").inner_text() == "1 to add"
        while focused(page) != "Save":
            page.keyboard.press("Tab")
            if focused(page) == "save":
                break
        page.keyboard.press("Enter")
        page.locator("#outcome").get_by_text("Saved.").wait_for()
        assert focused(page) == "save"
        assert page.get_by_role("checkbox", name="C105").is_checked()
        assert page.locator("#changes").inner_text() == "No changes yet"
        assert page.locator("#happened").get_by_text("admin/ana").count() == 1
    assert courses_of(student) == [105]


def test_ticked_and_unticked_boxes_are_one_replace(page: Any, backend: Backend, courses_of: Courses) -> None:
    student = backend.new_student()
    page.goto(f"/admin/students/{student}")
    for box in ("C101", "C102"):
        page.get_by_role("checkbox", name=box).check()
    page.get_by_role("button", name="Save").click()
    page.locator("#enrolled").get_by_role("checkbox", name="C101").uncheck()
    page.locator("#choices").get_by_role("checkbox", name="C103").check()
    assert page.locator("#changes").inner_text() == "1 to add, 1 to take away"
    page.get_by_role("button", name="Save").click()
    page.locator("#outcome").get_by_text("unenrolled").wait_for()
    assert courses_of(student) == [102, 103]
    newest = page.locator("#commands > li").first
    assert "replace" in newest.inner_text()


def test_boxes_stay_ticked_while_someone_searches_for_others(page: Any, backend: Backend, courses_of: Courses) -> None:
    student = backend.new_student()
    page.goto(f"/admin/students/{student}")
    for code in ("C107", "C109"):
        page.locator("#course-q").fill(code)
        page.locator("#offered").get_by_text("1 found").wait_for()
        page.get_by_role("checkbox", name=code).check()
    page.get_by_role("button", name="Save").click()
    page.locator("#outcome").get_by_text("Saved.").wait_for()
    assert courses_of(student) == [107, 109]


def test_a_rejection_stands_beside_the_field(page: Any, backend: Backend, courses_of: Courses) -> None:
    student = backend.new_student()
    page.goto(f"/admin/students/{student}")
    field = page.get_by_label("Or by course ids")
    field.fill("101, 999")
    page.get_by_role("button", name="Save").click()
    page.locator("#outcome").get_by_text("Rejected; nothing was changed.").wait_for()
    assert field.get_attribute("aria-invalid") == "true"
    assert "ids-wrong" in field.get_attribute("aria-describedby")
    assert page.locator("#ids-wrong").inner_text().startswith("There is no course 999.")
    assert field.input_value() == "101, 999"
    assert courses_of(student) == []
    field.fill("101 and more")
    page.get_by_role("button", name="Save").click()
    page.locator("#ids-wrong").get_by_text("“and” is no course id").wait_for()


def test_a_rejection_does_not_hide_the_field_on_a_small_screen(
    chromium: Any, admin_url: str, cookie: str, backend: Backend
) -> None:
    with opened(chromium, admin_url, width=360) as page:
        page.context.add_cookies([{"name": "enrollment_session", "value": cookie, "url": admin_url}])
        page.goto(f"/admin/students/{backend.new_student()}")
        page.get_by_label("Or by course ids").fill(" ".join(map(str, range(5000, 5900))))
        page.get_by_role("button", name="Save").click()
        page.locator("#ids-wrong").get_by_text("and 870 more").wait_for()
        page.locator(UNSETTLED).first.wait_for(state="detached")
        field, wrong, bar = (page.locator(it).bounding_box() for it in ("#ids", "#ids-wrong", ".save"))
        assert field["y"] >= 0
        assert wrong["y"] + wrong["height"] <= bar["y"]


def test_a_server_that_cannot_be_reached_is_told_and_not_more(page: Any, backend: Backend) -> None:
    page.goto(f"/admin/students/{backend.new_student()}")
    page.get_by_role("checkbox", name="C101").check()
    page.route("**/courses", lambda it: it.abort())
    page.get_by_role("button", name="Save").click()
    page.locator("#outcome").get_by_text("what you saved may have arrived. Load the page again.").wait_for()


def test_the_history_of_a_course_says_what_decided_it(page: Any, backend: Backend) -> None:
    student = backend.new_student()
    with Client(backend.redis.url) as client:
        client.enroll(student, [101], source="portal")
        client.unenroll(student, [101], source="registrar")
        client.enroll(student, [101, 102], source="sis")
    eventually(lambda: page.goto(f"/admin/students/{student}") and page.locator("#enrolled li").count() == 2)
    page.get_by_text("History of C101").click()
    rows = page.locator("#enrolled .panel").first.get_by_role("listitem")
    rows.first.wait_for()
    assert [source in rows.nth(at).inner_text() for at, source in enumerate(("sis", "registrar", "portal"))] == [
        True
    ] * 3
    assert [rows.nth(at).get_by_text("decides now").count() for at in range(3)] == [1, 0, 0]


def test_the_outcome_arrives_when_a_worker_is_back(page: Any, backend: Backend, courses_of: Courses) -> None:
    student = backend.new_student()
    page.goto(f"/admin/students/{student}")
    backend.worker.kill()
    try:
        page.get_by_role("checkbox", name="C104").check()
        page.get_by_role("button", name="Save").click()
        page.locator("#outcome").get_by_text("Sent; waiting for a worker.").wait_for()
        assert courses_of(student) == []
    finally:
        backend.start_worker()
    page.locator("#outcome").get_by_text("Saved.").wait_for()
    assert courses_of(student) == [104]


def test_events_appear_as_they_happen_and_can_be_held_back(page: Any, backend: Backend) -> None:
    student = backend.new_student()
    page.goto("/admin/events")
    page.locator("#live").get_by_text("Live", exact=True).wait_for()
    events = page.get_by_role("link", name=f"student {student}", exact=True)
    with Client(backend.redis.url) as client:
        client.enroll(student, [101])
        events.wait_for()
        assert events.count() == 1
        page.get_by_role("button", name="Pause").click()
        client.enroll(student, [102])
        page.locator("#live").get_by_text("1 held back").wait_for()
        assert events.count() == 1
        page.get_by_role("button", name="Pause").click()
        eventually(lambda: events.count() == 2)


def test_a_dead_letter_is_corrected_and_replayed(
    page: Any, backend: Backend, dead_letter: Callable[..., int], courses_of: Courses
) -> None:
    student = backend.new_student()
    letter = dead_letter(student_id=student, course_id=101)
    page.goto("/admin/dead-letters")
    page.get_by_role("link", name="Invalid command").click()
    page.locator(f"a[href$='/{letter}']").click()
    page.get_by_role("button", name="Replay as it arrived").click()
    assert page.locator("#payload-wrong").inner_text().startswith("This is not a valid command: course_ids is missing")
    payload = page.get_by_label("Payload")
    payload.fill(f'{{"student_id": {student}, "course_ids": [101]}}')
    page.get_by_role("button", name="Replay with this payload").click()
    page.get_by_text("Replayed").wait_for()
    page.get_by_text("applied").first.wait_for()
    assert courses_of(student) == [101]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_axe_finds_no_violation_on_any_page_and_nothing_is_cut_off(  # noqa: PLR0917 - all are fixtures
    chromium: Any,
    admin_url: str,
    backend: Backend,
    extremes: Extremes,
    dead_letter: Callable[..., int],
    width: int,
    scheme: str,
) -> None:
    student, letter = backend.new_student(), dead_letter(student_id=1, course_id=HOSTILE)
    addresses = [
        "/admin",
        "/admin/runbook",
        "/admin/students",
        "/admin/students?q=zzz",
        f"/admin/students/{student}",
        *(f"/admin/students/{it}" for it in (extremes.hostile, extremes.long, extremes.nameless, extremes.many)),
        f"/admin/students/{extremes.many}/courses/{MANY[0]}",
        "/admin/courses",
        f"/admin/courses/{MANY[0]}",
        "/admin/courses/120",
        "/admin/events",
        "/admin/dead-letters",
        "/admin/dead-letters/of/invalid_command",
        "/admin/dead-letters/of/revoked",
        f"/admin/dead-letters/{letter}",
        "/admin/commands/00000000-0000-7000-8000-000000000000",
        "/admin/nowhere",
    ]
    axe = Axe()
    with opened(chromium, admin_url, width=width, scheme=scheme) as page:

        def check() -> None:
            page.locator(UNSETTLED).first.wait_for(state="detached")
            found = axe.run(page, options={"resultTypes": ["violations"]})
            assert found.violations_count == 0, (page.url, found.generate_report())
            assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), (
                page.url
            )

        page.goto("/admin/login")
        check()
        enter(page)
        for address in addresses:
            page.goto(address)
            page.evaluate(SHORTEN)
            check()
        page.goto(f"/admin/students/{student}")
        page.get_by_label("Or by course ids").fill("999")
        page.get_by_role("button", name="Save").click()
        page.locator("#outcome").get_by_text("Rejected").wait_for()
        check()
        page.get_by_label("Or by course ids").fill("")
        page.get_by_role("checkbox").first.check()
        page.get_by_role("button", name="Save").click()
        page.locator("#outcome").get_by_text("Saved.").wait_for()
        page.locator(UNSETTLED).first.wait_for(state="detached")
        page.get_by_text("History of").first.click()
        page.locator("#enrolled .panel li").first.wait_for()
        check()


def test_extreme_students_are_shown(page: Any, extremes: Extremes) -> None:
    page.goto(f"/admin/students/{extremes.hostile}")
    assert page.get_by_role("heading", level=1).inner_text() == HOSTILE
    page.goto(f"/admin/students/{extremes.long}")
    assert page.get_by_role("heading", level=1).inner_text() == LONG
    page.goto(f"/admin/students/{extremes.nameless}")
    assert page.get_by_role("heading", level=1).inner_text() == f"Student {extremes.nameless}"
    page.goto(f"/admin/students/{extremes.many}")
    assert page.locator("#enrolled").get_by_role("checkbox").count() == len(MANY)
    page.get_by_label("Show only").fill("gen-7499")
    assert page.locator("#enrolled li:visible").count() == 1
