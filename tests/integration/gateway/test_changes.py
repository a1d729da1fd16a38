"""The change feed and the snapshot, over HTTP, and a reader that goes on with them."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from redis import Redis
from sqlalchemy import Engine, event, text

from enrollment.consumer import EventsMissed, Feed, Reader
from enrollment.consumer.reader import FEED
from enrollment.names import ENROLL, UNENROLL
from models import epoch, feed
from tests.gateway import assert_problem, served
from tests.integration.conftest import STREAM, catalog, message, publisher, service, worker_engine
from worker.service import Service
from worker.settings import Settings

__all__ = ["catalog", "publisher", "service", "worker_engine"]


@pytest.fixture
def url(database_url: str, redis_url: str) -> Iterator[str]:
    with served(Settings.model_validate({"database_url": database_url, "broker_url": redis_url})) as url:
        yield url


def stream(client: Redis) -> list[str]:
    entries: Any = client.xrange(STREAM)
    return [fields["event"] for _, fields in entries]


def enroll(service: Service, *students: int, course: int = 10) -> None:
    for student in students:
        service.handle([message(ENROLL, student, [course])])


def read_all(reader: Reader) -> list[str]:
    found: list[str] = []
    while True:
        entries = reader.read(2, wait=0.1)
        if not entries and not reader.position.startswith(FEED):
            return found
        found += [entry.text for entry in entries]


def test_the_feed_has_each_event_once_with_the_bytes_of_the_stream(
    url: str, service: Service, redis_client: Redis
) -> None:
    enroll(service, 1, 2, 3, 4, 99)
    found: list[str] = []
    after: dict[str, str] = {}
    more = True
    while more:
        answer = httpx.get(f"{url}/changes", params={"limit": 2, **after})
        found += answer.text.split("\n")[1:-2]
        after, more = {"after": answer.json()["cursor"]}, answer.json()["more"]
    assert [line.removesuffix(",") for line in found if line] == stream(redis_client)
    assert httpx.get(f"{url}/changes", params=after).json()["events"] == []
    enroll(service, 5)
    (event,) = httpx.get(f"{url}/changes", params=after).json()["events"]
    assert event["data"]["student_id"] == 5


def test_a_transaction_that_commits_late_is_not_skipped(service: Service, engine: Engine) -> None:
    enroll(service, 1)
    with engine.connect() as late, engine.connect() as reading:
        late.execute(text("UPDATE commands SET position = CAST(CAST(pg_current_xact_id() AS text) AS bigint)"))
        enroll(service, 2)  # committed, and yet behind one that is under way
        first = feed.page(reading, None, rows=10)
        assert len(first.events) == 1
        assert len(feed.page(reading, str(first.cursor), rows=10, ahead=True).events) == 1
        late.commit()
        reading.rollback()
        after = feed.page(reading, str(first.cursor), rows=10)
        assert [json.loads(event)["data"]["student_id"] for event in after.events] == [1, 2]


def test_a_transaction_that_writes_elsewhere_holds_the_feed_and_one_that_reads_does_not(
    service: Service, engine: Engine
) -> None:
    with engine.connect() as reading, engine.connect() as other:
        backup = other.execution_options(isolation_level="REPEATABLE READ")
        backup.execute(text("SELECT FROM commands"))  # as of pg_dump
        enroll(service, 1)
        assert (len(feed.page(reading, None, rows=10).events), feed.behind(reading)) == (1, 0)
        backup.execute(text("CREATE TEMPORARY TABLE elsewhere ()"))
        enroll(service, 2)
        assert len(feed.page(reading, None, rows=10).events) == 1
        assert feed.behind(reading) > 0
        assert len(feed.page(reading, None, rows=10, ahead=True).events) == 2


def test_a_cursor_that_is_none_of_another_database_or_too_old_is_refused(
    url: str, service: Service, engine: Engine
) -> None:
    enroll(service, 1)
    cursor = httpx.get(f"{url}/changes").json()["cursor"]
    assert_problem(httpx.get(f"{url}/changes", params={"after": "nonsense"}), 422, "invalid_request")
    assert_problem(httpx.get(f"{url}/changes", params={"after": f"1{cursor[1:]}"}), 410, "changes_gone")
    database, _, last = cursor.split(".")
    assert_problem(httpx.get(f"{url}/changes", params={"after": f"{database}.ffffffff.{last}"}), 410, "changes_gone")
    with engine.begin() as connection:
        connection.execute(text("UPDATE retention SET gone_to = :at"), {"at": int(cursor.split(".")[1], 16)})
    assert_problem(httpx.get(f"{url}/changes", params={"after": cursor}), 410, "changes_gone")
    assert len(httpx.get(f"{url}/changes").json()["events"]) == 1


@pytest.mark.parametrize("restored", ["a new epoch", "another cluster"])
def test_a_cursor_of_before_a_restore_is_refused_and_one_of_after_it_is_not(
    url: str, service: Service, engine: Engine, restored: str
) -> None:
    enroll(service, 1)
    before = httpx.get(f"{url}/changes").json()["cursor"]
    with engine.begin() as connection:
        if restored == "a new epoch":
            epoch.note(connection, begin=True)
        else:
            connection.execute(text("UPDATE epoch SET cluster = cluster + 1"))
    assert_problem(httpx.get(f"{url}/changes", params={"after": before}), 410, "changes_gone")
    page = httpx.get(f"{url}/changes").json()
    assert len(page["events"]) == 1
    assert httpx.get(f"{url}/changes", params={"after": page["cursor"]}).json()["events"] == []


def test_the_feed_begins_at_a_time(service: Service, engine: Engine) -> None:
    enroll(service, 1, 2, 3)
    with engine.begin() as connection:
        connection.execute(text("UPDATE commands SET processed_at = now() - interval '2 days' WHERE student_id < 3"))
        day = connection.scalar(text("SELECT now() - interval '1 day'"))
        old = connection.scalar(text("SELECT now() - interval '3 days'"))
        assert len(feed.page(connection, str(feed.since(connection, day)), rows=10).events) == 1
        assert len(feed.page(connection, str(feed.since(connection, old)), rows=10).events) == 3


def test_a_page_that_retention_has_overtaken_is_refused(service: Service, engine: Engine) -> None:
    enroll(service, 1)
    with engine.connect() as connection:
        cursor = str(feed.page(connection, None, rows=1).cursor)
    enroll(service, 2)
    enroll(service, 3)

    def forget(*about: Any) -> None:
        if "FROM commands" in about[2]:
            with engine.begin() as other:
                gone = "WITH gone AS (DELETE FROM commands WHERE student_id = 2 RETURNING position)"
                other.execute(text(f"{gone} UPDATE retention SET gone_to = gone.position FROM gone"))

    with engine.connect() as reading:
        event.listen(reading, "before_cursor_execute", forget)
        with pytest.raises(feed.ChangesGone):
            feed.page(reading, cursor, rows=10)


def test_a_time_finds_what_was_decided_after_others_that_began_later(service: Service, engine: Engine) -> None:
    for student in range(1, 9):
        enroll(service, student)
    late = {3: 2, 2: 10}  # the second student's transaction began before most, and took longer than all
    with engine.begin() as connection:
        connection.execute(text("UPDATE commands SET processed_at = now() - interval '1 day'"))
        for student, seconds in late.items():
            connection.execute(
                text(
                    "UPDATE commands SET processed_at = processed_at + make_interval(secs => :s) WHERE student_id = :id"
                ),
                {"s": seconds, "id": student},
            )
        time = connection.scalar(text("SELECT now() - interval '1 day' + interval '5 s'"))
        page = feed.page(connection, str(feed.since(connection, time)), rows=10)
    assert '"students/2"' in "".join(page.events)


def test_a_time_of_before_a_repair_is_refused_and_one_of_after_it_is_not(
    url: str, service: Service, engine: Engine
) -> None:
    enroll(service, 1)
    before = datetime.now(UTC)
    with engine.begin() as connection:
        epoch.note(connection, begin=True)
    enroll(service, 2)
    answer = httpx.get(f"{url}/changes", params={"since": before.isoformat()})
    assert_problem(answer, 410, "changes_gone")
    after = httpx.get(f"{url}/changes", params={"since": datetime.now(UTC).isoformat()})
    assert after.status_code == 200


def test_a_copy_begins_with_a_snapshot_and_goes_on_with_the_feed(url: str, service: Service) -> None:
    enroll(service, 1, 2)
    service.handle([message(UNENROLL, 2, [10])])
    first, *pairs, last = map(json.loads, httpx.get(f"{url}/snapshot").text.splitlines())
    assert [(pair["student_id"], pair["course_id"]) for pair in pairs] == [(1, 10)]
    assert (last, pairs[0]["command_id"] is None) == ({"pairs": 1}, False)
    enroll(service, 3)
    (event,) = httpx.get(f"{url}/changes", params={"after": first["cursor"]}).json()["events"]
    assert event["data"]["student_id"] == 3


def test_a_reader_whose_entries_are_gone_reads_on_in_the_feed_and_comes_back(
    url: str, service: Service, redis_client: Redis, redis_url: str
) -> None:
    enroll(service, 1)
    with Reader(redis_url, wait=0.1, feed=Feed(url)) as reader:
        assert len(reader.read()) == 1
        enroll(service, 2, 3, 4)
        told = stream(redis_client)
        redis_client.xtrim(STREAM, maxlen=1, approximate=False)
        entries = reader.read(2)
        kept = reader.position
        assert kept.startswith(FEED)
    with Reader(redis_url, position=kept, wait=0.1, feed=Feed(url)) as again:  # as after a kill
        rest = read_all(again)
        assert set(told[1:]) <= {*(entry.text for entry in entries), *rest}
        enroll(service, 5)
        assert read_all(again) == stream(redis_client)[-1:]


def test_a_reader_that_has_read_all_of_a_stream_missed_nothing_when_that_is_emptied(
    url: str, service: Service, redis_client: Redis, redis_url: str
) -> None:
    enroll(service, 1, 2)
    with Reader(redis_url, wait=0.01, feed=Feed(url)) as reader:
        read_all(reader)
        redis_client.xtrim(STREAM, maxlen=0, approximate=False)
        assert reader.read() == []


def test_a_reader_without_a_feed_is_told_of_what_is_missing(
    service: Service, redis_client: Redis, redis_url: str
) -> None:
    enroll(service, 1, 2)
    with Reader(redis_url, position="1-1", wait=0.1) as reader:
        redis_client.xtrim(STREAM, maxlen=1, approximate=False)
        with pytest.raises(EventsMissed):
            reader.read()
