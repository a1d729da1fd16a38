"""What producers, readers and people at the page do, each as the user that is made for it."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import pytest
from celery import Celery

from enrollment.client import Client
from enrollment.consumer import EventsMissed, GroupConsumer, Reader
from tests.admin import field
from tests.eventually import eventually

OPTIONS: Final[dict[str, Any]] = {"sep": ":", "priority_steps": [0, 5, 9], "global_keyprefix": "school:"}
STREAM: Final = "school*events"
DATABASE: Final = 3


def send(url: str) -> set[str]:
    """Send in each way there is, a message that becomes a dead letter among them; return the ids of the commands."""
    with Client(url, transport_options=OPTIONS) as client:
        sent = {str(client.enroll(student, [10])) for student in (1, 2)}
        waits = client.enroll(7, [999], wait_until=datetime.now(UTC) + timedelta(hours=1))
        sent |= {str(waits), str(client.withdraw(waits))}
        with client.bulk() as bulk:
            sent |= {str(bulk.replace(student, [11, 12])) for student in (1, 3)}
    app: Any = Celery("stock", broker=url, set_as_current=False)
    app.conf.broker_transport_options = OPTIONS
    with app.connection_for_write() as line:
        for priority in (0, 5, 9):
            kwargs = {"student_id": 4, "course_ids": [10 + priority]}
            done = app.send_task("enrollment.enroll.v1", kwargs=kwargs, queue="enrollment", priority=priority,
                                 connection=line)  # fmt: skip
            sent.add(done.id)
        app.send_task("nonsense", queue="enrollment", connection=line)
    return sent


def use_the_gateway(url: str) -> None:
    eventually(lambda: got(f"{url}/readyz"), 60)
    with httpx.Client(base_url=url, timeout=20, follow_redirects=True, headers={"Origin": url}) as http:
        put = http.put("/students/5/courses", json={"course_ids": [15]})
        assert put.json()["effects"]["enrolled"] == [15], put.text
        assert http.get("/students/5/courses").json()["courses"][0]["id"] == 15
        assert json.loads(http.get("/changes").text)["events"]
        assert "Overview" in http.get("/admin").text
        eventually(lambda: "unknown_task" in http.get("/admin/dead-letters").text)
        said = {"csrf": field(http.get("/admin/dead-letters/1").text, "csrf")}
        form = {"id": "1", "code": "unknown_task", "decision": "discard", "sure": "yes", **said}
        assert "1 discarded." in http.post("/admin/dead-letters/decide", data=form).text
        file = {"file": ("rows.csv", b"student,course\n6,13\n", "text/csv")}
        assert http.post("/admin/imports", data={**said, "by": "id"}, files=file).status_code == 200
        assert "rows.csv" in http.get("/admin/imports").text


def got(url: str) -> str:
    try:
        answer = httpx.get(url, timeout=20)
    except httpx.HTTPError:
        return ""
    return answer.text if answer.is_success else ""


def follow(url: str, owner: Any, sent: set[str]) -> None:
    """Read the events of these commands in each way there is, a gap among them."""
    with Reader(url, stream=STREAM, wait=0.2) as reader:
        read: list[str] = []

        def all_are_read() -> bool:
            read.extend(str(entry.event.id) for entry in reader.read() if entry.event)
            return sent <= set(read)

        eventually(all_are_read)
    with GroupConsumer(url, stream=STREAM, group="g", name="one", wait=0.2) as consumer:
        batch = consumer.read()
        assert len(batch.entries) >= len(sent)
        trim = "redis.call('SELECT', ARGV[1]) return redis.call('XTRIM', KEYS[1], 'MAXLEN', 1)"
        owner.eval(trim, 1, STREAM, DATABASE)
    with GroupConsumer(url, stream=STREAM, group="g", name="one", wait=0.2) as consumer:
        with pytest.raises(EventsMissed):
            consumer.read()
        consumer.read().acknowledge()
