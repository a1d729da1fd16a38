"""A worker that stands still in the middle of a transaction, its connection open: others go on without it."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from sqlalchemy import Engine

from enrollment.names import ENROLL
from tests.eventually import eventually
from tests.integration.conftest import message
from tests.root import ROOT
from worker.service import Service

Rows = Callable[..., list[tuple[Any, ...]]]
Events = Callable[[], list[dict[str, Any]]]

PROGRAM = """
import os, signal, sys
import models.engine
from models import ledger, outbox
from tests.integration.conftest import STREAM, message
from worker.publishing import Publisher, connect
from worker.service import Service

def freeze(*_, **__):
    os.kill(os.getpid(), signal.SIGSTOP)

database_url, redis_url, where = sys.argv[1:]
models.engine._OPTIONS["idle_in_transaction_session_timeout"] = "2s"
engine = models.engine.make_engine(database_url, application_name="frozen")
service = Service(engine, Publisher(connect(redis_url), stream=STREAM, maxlen=1000))
if where == "batch":
    ledger.write_changes = freeze
    service.handle([message("enrollment.enroll.v1", 1, [10])])
else:
    outbox.pending = freeze
    service.relay(older_than=0)
"""


@pytest.fixture
def frozen(database_url: str, redis_url: str) -> Iterator[Callable[[str], None]]:
    """Give a function that starts a worker and returns when it stands still."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(where: str) -> None:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, database_url, redis_url, where], cwd=ROOT)
        processes.append(process)
        stat = Path(f"/proc/{process.pid}/stat")
        eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")

    yield start
    for process in processes:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_its_students_are_free_again(service: Service, rows: Rows, frozen: Callable[[str], None]) -> None:
    frozen("batch")
    service.handle([message(ENROLL, 1, [11]), message(ENROLL, 2, [11])])
    end = monotonic() + 90
    while service.release() is not None:  # until the server has ended the transaction of the one that stands still
        assert monotonic() < end
        sleep(0.1)
    assert rows("student_id, course_id", "student_courses") == [(1, 11), (2, 11)]


def test_its_turn_to_relay_is_over(
    service: Service, rows: Rows, events: Events, frozen: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:  # as if killed right after the commit
        patch.setattr(service._relay, "publish", lambda *_: None)
        service.handle([message(ENROLL, 1, [10])])
    frozen("relay")
    eventually(lambda: service.relay(older_than=0))
    assert [event["data"]["enrolled"] for event in events()] == [[10]]
    assert rows("*", "outbox") == []


def test_every_session_is_told_so(engine: Engine) -> None:
    with engine.connect() as connection:
        shown = connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar_one()
    assert shown == "30s"
