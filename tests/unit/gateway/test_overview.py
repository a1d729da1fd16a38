"""What the overview keeps of an answer, and for how long."""

import asyncio
import re

import pytest

from gateway.admin import overview
from gateway.admin.overview import OLD, PLACES, Kept
from tests.root import ROOT

SERVERS = {"settings", "database", "broker", "events"}  # which lead to EnrollmentServerAway or to what to set


def test_an_answer_of_long_ago_is_not_shown_as_that_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr(overview, "monotonic", lambda: now)
    monkeypatch.setattr(overview, "PATIENCE", 0.05)

    async def look() -> None:
        nonlocal now
        kept, away = Kept[str](least=15.0), asyncio.Event()

        async def answer() -> str:
            return "no worker"

        async def late() -> str:
            await away.wait()
            return "all is well"

        assert await kept.get(answer) == "no worker"
        now += 16.0
        assert await kept.get(late) == "no worker"  # the one before, while the new one is waited for
        now += OLD
        assert await kept.get(late) is None
        away.set()
        assert await kept.get(late) == "all is well"

    asyncio.run(look())


def test_each_finding_of_doctor_has_a_place_where_it_is_mended() -> None:
    code = "".join(path.read_text("utf-8") for path in (ROOT / "worker").glob("*.py"))
    names = set(re.findall(r'Finding\(\s*"\w+", "([\w ]+)"', code))
    assert {"feed", "outbox"} <= names
    assert names - SERVERS <= set(PLACES)
