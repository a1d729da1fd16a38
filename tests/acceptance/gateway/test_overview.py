"""The first page: what it says of a run that is known, of trouble, and where it leads; and where a browser begins."""

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import httpx

from enrollment.client import Client
from gateway.admin.overview import ELSEWHERE, FINDINGS_EVERY, PLACES, SETTING
from tests.admin import enter, opened
from tests.eventually import eventually
from tests.gateway import Backend, assert_problem

NUMBER = r"<dt>(?:<span[^>]*></span>)?{}</dt><dd>([\d,]+)"


def number(page: str, name: str) -> int:
    found = re.search(NUMBER.format(name), page)
    assert found is not None, page
    return int(found[1].replace(",", ""))


def shown(admin: httpx.Client) -> str:
    return unescape(admin.get("/admin").text)


def test_what_was_processed_is_shown_with_its_source_and_its_code(admin: httpx.Client, backend: Backend) -> None:
    before = shown(admin)
    with Client(backend.redis.url) as client:
        client.enroll(backend.new_student(), [101], source="overview-test")
        last = client.enroll(backend.new_student(), [999], source="overview-test")
        client.wait_for(last)
    old = (number(before, "applied"), number(before, "rejected"))
    # An answer is kept for twenty times as long as it took.
    page = eventually(lambda: it if number(it := shown(admin), "rejected") > old[1] else "", patience=90)
    assert number(page, "applied") > old[0]
    source = page.partition(">overview-test</a>")[2].partition("</tr>")[0]
    assert re.findall(r"<td[^>]*>([\d,]+)</td>", source) == ["2", "1"]
    assert "unknown courses" in page
    assert 'role="img" aria-label="Commands per step: ' in page


def test_trouble_is_told_in_the_words_of_doctor_with_where_it_is_mended(
    admin: httpx.Client, backend: Backend, dead_letter: Callable[..., int]
) -> None:
    dead_letter(student_id=backend.new_student(), course_id=[101])

    def told() -> str:
        page = shown(admin)
        return page if "dead letters open: " in page or "dead letter open: " in page else ""

    # What `doctor` said just before is kept for a while, and then it listens for seconds.
    page = eventually(told, patience=4 * FINDINGS_EVERY)
    assert "See them with <code>enrollment dead-letters list</code>" in page
    assert '<a href="/admin/dead-letters" id="place-' in page


def test_every_place_that_the_overview_leads_to_is_in_the_runbook(admin: httpx.Client) -> None:
    runbook = admin.get("/admin/runbook").text
    for address, _ in (*PLACES.values(), SETTING, ELSEWHERE):
        path, _, anchor = address.partition("#")
        assert admin.get(path).status_code == 200
        assert not anchor or f'id="{anchor}"' in runbook


def test_the_first_address_leads_a_browser_to_the_page_and_other_programs_nowhere(http: httpx.Client) -> None:
    answer = http.get("/", headers={"accept": "text/html,*/*"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/admin")
    assert_problem(http.get("/"), 404, "not_found")


def test_the_overview_renews_itself_and_the_viewer_shows_what_the_gateway_offers(
    chromium: Any, admin_url: str, backend: Backend
) -> None:
    with opened(chromium, admin_url) as page:
        enter(page)
        page.goto("/admin")
        before = page.locator("#as-of time").get_attribute("datetime")
        page.locator(f"#as-of time:not([datetime='{before}'])").wait_for()
        page.goto("/docs")
        page.get_by_text("/students/{student_id}", exact=True).first.wait_for()
        assert page.locator(".opblock").count() > 5


def test_dead_letters_are_filtered_by_source_and_time(
    admin: httpx.Client, backend: Backend, dead_letter: Callable[..., int]
) -> None:
    wanted, other = (
        dead_letter(student_id=backend.new_student(), course_id=[101], source=it) for it in ("filter-a", "filter-b")
    )

    def ids(**said: str) -> set[int]:
        page = admin.get("/admin/dead-letters/of/any", params=said).text
        return {int(it) for it in re.findall(r'name="id" value="(\d+)"', page)}

    assert {wanted, other} <= ids()
    assert ids(source="filter-a") == {wanted}
    assert ids(source="filter-a", until="2020-01-01T00:00") == set()
    assert ids(source="filter-a", since="2020-01-01T00:00") == {wanted}


def test_events_are_filtered_by_outcome_student_course_and_source(admin: httpx.Client, backend: Backend) -> None:
    student = backend.new_student()
    with Client(backend.redis.url) as client:
        applied = client.enroll(student, [118, 119], source="filter-c")
        rejected = client.enroll(student, [999], source="filter-d")
        client.wait_for(rejected)

    def found(**said: object) -> set[str]:
        page = admin.get("/admin/events", params={name: str(it) for name, it in said.items()}).text
        return set(re.findall(r'href="/admin/commands/([^"]+)"', page))

    assert found(student=student) == {str(applied), str(rejected)}
    assert found(student=student, outcome="rejected") == {str(rejected)}
    assert found(student=student, course=119) == {str(applied)}
    assert found(source="filter-d") == {str(rejected)}
    assert found(source="filter-d", outcome="applied") == set()
