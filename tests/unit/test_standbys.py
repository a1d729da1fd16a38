"""What doctor says of replication."""

import pytest

from models.replication import Standing
from worker.standbys import replicates, servers

SYNCHRONOUS = Standing(standby=False, wanted="*", level="on", connected=1, seen=1, synchronous=1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ["ok synchronous: 1 standby"]),
        ({"seen": 0, "synchronous": 0}, ["ok synchronous: synchronous_standby_names"]),
        ({"synchronous": 0}, ["fail commits wait, and no synchronous standby is connected"]),
        ({"level": "local"}, ["warn synchronous_commit is local: commits do not wait for the standby"]),
        ({"standby": True}, ["fail this server is a standby and takes no writes"]),
        ({"wanted": "", "connected": 0, "seen": 0, "synchronous": 0}, []),
    ],
)
def test_a_server_that_could_lose_commits_is_told(changes: dict[str, object], said: list[str]) -> None:
    standing = Standing(**{**{name: getattr(SYNCHRONOUS, name) for name in Standing.__slots__}, **changes})
    assert [f"{it.status} {it.message}" for it in replicates(standing, several=False)] == said


@pytest.mark.parametrize(
    ("wanted", "seen", "needed", "there"),
    [
        ("", 1, 0, 2),
        ("*", 1, 1, 1),
        ("a, b", 1, 1, 1),
        ("ANY 2 (a, b, c)", 1, 2, 1),
        ("2(a,b)", 1, 2, 1),
        ("*", 0, 1, 2),
    ],
)
def test_standbys_count_that_a_commit_waits_for(wanted: str, seen: int, needed: int, there: int) -> None:
    standing = Standing(standby=False, wanted=wanted, level="on", connected=2, seen=seen, synchronous=1)
    assert (standing.needed, standing.there) == (needed, there)


@pytest.mark.parametrize(("connected", "several"), [(1, False), (0, True)])
def test_asynchronous_replication_is_warned_of(connected: int, *, several: bool) -> None:
    standing = Standing(standby=False, wanted="", level="on", connected=connected, seen=0, synchronous=0)
    [found] = replicates(standing, several=several)
    assert found.status == "warn"
    assert found.message.startswith("asynchronous")


def test_a_server_that_does_not_answer_is_warned_of() -> None:
    found = [(it.status, it.message) for it in servers([("a:1", "standby"), ("b:1", "connection refused")])]
    assert found == [("ok", "a:1 is a standby"), ("warn", "b:1 does not answer: connection refused")]
