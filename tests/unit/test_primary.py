"""Which of several servers may be written to."""

from datetime import UTC, datetime

import pytest

from models.primary import Server, hosts, objection

EARLY, LATE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
PRIMARY = Server("a:1", 7, 3, EARLY)


def test_lists_of_hosts_are_read_as_libpq_reads_them() -> None:
    said = {"host": "a,b", "port": "1,", "user": "u"}
    assert list(hosts(said)) == [{"host": "a", "port": "1", "user": "u"}, {"host": "b", "port": None, "user": "u"}]
    assert [each["port"] for each in hosts({"host": "a,b", "port": "7"})] == ["7", "7"]
    assert list(hosts({"user": "u"})) == [{"user": "u"}]


def test_an_old_primary_beside_the_new_one_is_no_reason_against_that() -> None:
    assert not objection(PRIMARY, [PRIMARY, Server("b:1", 7, 2, LATE)], newest=3)


def test_one_server_by_two_names_is_one() -> None:
    assert not objection(PRIMARY, [PRIMARY, PRIMARY._replace(name="alias:1")], newest=0)


@pytest.mark.parametrize(
    ("other", "newest", "reason"),
    [
        (Server("b:1", 7, 3, LATE), 3, "both take writes"),
        (Server("b:1", 8, 1, LATE), 3, "not of one cluster"),
        (PRIMARY, 4, "was replaced"),
    ],
)
def test_nothing_is_written_where_it_is_not_clear_who_is_the_primary(other: Server, newest: int, reason: str) -> None:
    assert reason in objection(PRIMARY, [PRIMARY, other], newest)
