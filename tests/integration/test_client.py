"""The producer against a real broker: what arrives is what Celery sends, and an outage is an error in time."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from kombu import Connection as KombuConnection
from kombu import Producer, Queue
from redis import Redis as Connection
from redis.exceptions import ResponseError

from enrollment.client import BrokerAway, Client, broker_connection, redis_list
from enrollment.names import APPLY, BULK_QUEUE, ENROLL, QUEUE, REPLACE
from worker.local.redis import Redis

STOCK = """
import json
from celery import Celery
from kombu import Queue
from redis import Redis
app = Celery("stock", broker={url!r})
app.conf.update(task_queues=[Queue("enrollment"), Queue("enrollment.bulk")], broker_connection_retry_on_startup=True)
def seen(self, *args, **kwargs):
    Redis.from_url({url!r}).rpush("seen", json.dumps([self.name, self.request.id, args, kwargs]))
for name in {names!r}:
    app.task(seen, name=name, bind=True)
"""


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    with Client(redis_url, patience=2) as client:
        yield client


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def entries(redis: Any, queue: str) -> list[dict[str, Any]]:
    return [json.loads(entry) for entry in reversed(redis.lrange(queue, 0, -1))]


def body(entry: dict[str, Any]) -> Any:
    return json.loads(b64decode(entry["body"]))


def shape(value: Any, *, leave: tuple[str, ...]) -> Any:
    """Return a message without what differs from one to the next."""
    if isinstance(value, dict):
        return {key: shape(item, leave=leave) for key, item in value.items() if key not in leave}
    return value


def test_a_message_is_what_celery_itself_sends(client: Client, redis_url: str, redis_client: Connection) -> None:
    command_id = client.enroll(1, [2, 3], source="portal")
    app = Celery("stock", broker=redis_url, set_as_current=False)
    app.conf.update(task_queues=[Queue(QUEUE)], task_default_queue=QUEUE)
    app.send_task(
        ENROLL,
        kwargs=body(entries(redis_client, QUEUE)[0])[1],
        task_id=str(command_id),
        queue=QUEUE,
    )
    app.close()
    ours, theirs = entries(redis_client, QUEUE)
    leave = ("delivery_tag", "body", "argsrepr", "kwargsrepr", "reply_to", "ignore_result")
    assert body(ours) == body(theirs)
    assert shape(ours, leave=leave) == shape(theirs, leave=leave)


def test_a_message_is_byte_for_byte_what_kombu_would_put_on_the_list(redis_url: str, redis_client: Any) -> None:
    message = broker_connection.OutgoingMessage(
        QUEUE, ENROLL, "11111111-1111-4111-8111-111111111111", "<1 course>", '[[],{"é":"%s"},{}]'
    )
    ours = broker_connection.BrokerConnection(redis_url, 1)
    ours.publish(message, ())
    ours.close()
    with KombuConnection(redis_url) as connection:
        broker_connection._produce(Producer(connection.channel()), [message])
    without_tag = [re.sub(r'"delivery_tag": "[0-9a-f-]{36}"', "", entry) for entry in redis_client.lrange(QUEUE, 0, -1)]
    assert len(without_tag) == 2
    assert without_tag[0] == without_tag[1]
    assert len({entry["properties"]["delivery_tag"] for entry in entries(redis_client, QUEUE)}) == 2


def test_no_two_messages_have_one_delivery_tag(client: Client, redis_client: Any) -> None:
    for _ in range(2):
        client.enroll(1, [2])
        client.enroll(1, [2])
        client.close()
    assert len({entry["properties"]["delivery_tag"] for entry in entries(redis_client, QUEUE)}) == 4


def test_another_broker_gets_its_messages_by_kombu() -> None:
    with Client("memory://") as client, KombuConnection("memory://") as connection:
        command_id = client.enroll(1, [2])
        channel: Any = connection.channel()
        received = channel.basic_get(QUEUE)
    assert received.headers["id"] == str(command_id)
    assert json.loads(received.body)[1]["course_ids"] == [2]


def test_a_stock_worker_reads_what_is_sent(client: Client, redis_url: str, redis_client: Any, tmp_path: Path) -> None:
    single = client.replace(1, [])
    with client.bulk() as bulk:
        many = [bulk.enroll(1, [2]), bulk.unenroll(1, [2])]
    (tmp_path / "stock.py").write_text(STOCK.format(url=redis_url, names=[ENROLL, REPLACE, APPLY]))
    command = [sys.executable, "-m", "celery", "-A", "stock", "worker", "--pool=solo", "--without-mingle"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"PATH": os.defpath}
    ) as worker:
        deadline = time.monotonic() + 30
        while redis_client.llen("seen") < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        worker.kill()
    seen = {
        name: (task_id, args, kwargs)
        for name, task_id, args, kwargs in map(json.loads, redis_client.lrange("seen", 0, -1))
    }
    task_id, args, kwargs = seen[REPLACE]
    assert (UUID(task_id), args, kwargs["student_id"], kwargs["course_ids"]) == (single, [], 1, [])
    assert [UUID(command["command_id"]) for command in seen[APPLY][2]["commands"]] == many


def test_a_bulk_is_one_message(client: Client, redis_client: Connection) -> None:
    with client.bulk() as bulk:
        for student_id in range(1, 101):
            bulk.enroll(student_id, [1])
    [entry] = entries(redis_client, BULK_QUEUE)
    assert entry["headers"]["task"] == APPLY
    assert [command["student_id"] for command in body(entry)[1]["commands"]] == list(range(1, 101))


def test_a_broker_that_is_away_is_an_error_in_time(redis: Redis, redis_url: str) -> None:
    redis.stop()
    client, begin = Client(redis_url, patience=1), time.monotonic()
    with pytest.raises(BrokerAway, match="Connection refused") as raised:
        client.enroll(1, [2])
    assert time.monotonic() - begin < 5
    assert len(raised.value.command_ids) == 1
    assert redis.password not in str(raised.value)


def test_a_broker_that_does_not_answer_is_an_error_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(broker_connection._REDIS, "socket_timeout", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client, begin = Client(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", patience=0.5), time.monotonic()
        with pytest.raises(BrokerAway):
            client.enroll(1, [2])
    assert time.monotonic() - begin < 5


def test_a_broker_that_no_longer_answers_is_an_error_in_time(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(broker_connection._REDIS, "socket_timeout", 0.3)
    with Client(redis_url, patience=0) as client:
        client.enroll(1, [2])
        os.kill(redis.pid, signal.SIGSTOP)
        try:
            begin = time.monotonic()
            with pytest.raises(BrokerAway, match="does not answer in time"):
                client.enroll(1, [3])
            assert 0.2 < time.monotonic() - begin < 2
        finally:
            os.kill(redis.pid, signal.SIGCONT)


def test_a_broker_that_hangs_up_within_its_answer_has_not_said_anything() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b":1")
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionResetError):
            redis_list._line(ours)


@pytest.mark.parametrize("answer", [b"-OOM no\r\n", b">1\r\n+moving\r\n", b":1\r\n>2\r\n+moving\r\n:9\r\n"])
def test_an_answer_that_is_not_a_length_alone_does_not_confirm(answer: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(answer)
        with pytest.raises(ResponseError):
            redis_list.RedisList(SimpleNamespace(_sock=ours), redis_list.in_resp)([b"LPUSH", b"list", b"entry"])


def test_sockets_that_wait_by_themselves_keep_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Green(socket.socket):  # as gevent puts in its place
        def settimeout(self, value: float | None) -> None:
            os.set_blocking(self.fileno(), False)
            self.seconds = value

        def gettimeout(self) -> float | None:
            return self.seconds

    monkeypatch.setattr(redis_list, "socket", Green)
    with Green() as wire:
        wire.settimeout(5.0)
        redis_list._let_kernel_watch_time(wire)
        assert wire.gettimeout() == 5.0


def test_a_client_is_one_connection(client: Client, redis_client: Any) -> None:
    client.enroll(1, [2])
    assert [it["name"] for it in redis_client.client_list()].count("enrollment-producer") == 1


def test_a_broker_that_refuses_to_write_is_an_error_that_says_why(
    client: Client, redis: Redis, redis_client: Any
) -> None:
    redis_client.config_set("maxmemory", "1")
    with pytest.raises(BrokerAway, match="command not allowed when used memory"):
        client.enroll(1, [2])


def test_a_broker_that_comes_back_gets_the_message(client: Client, redis: Redis, redis_url: str) -> None:
    client.enroll(1, [2])
    redis.kill()
    redis.start()
    client.enroll(1, [3])  # over a connection that has gone stale
    with Connection.from_url(redis_url) as connection:
        assert [body(entry)[1]["course_ids"] for entry in entries(connection, QUEUE)] == [[2], [3]]


def test_a_bulk_that_the_broker_did_not_take_can_be_tried_again(client: Client, redis: Redis, redis_url: str) -> None:
    bulk = client.bulk()
    command_id = bulk.enroll(1, [2])
    redis.stop()
    with pytest.raises(BrokerAway) as raised:
        bulk.flush()
    assert raised.value.command_ids == (command_id,)
    redis.start()
    bulk.flush()
    with Connection.from_url(redis_url) as connection:
        [entry] = entries(connection, BULK_QUEUE)
    assert (bulk.sent, bulk.waiting) == (1, 0)
    assert body(entry)[1]["commands"][0]["command_id"] == str(command_id)


def test_a_message_is_never_taken_for_sent_by_the_answer_to_one_that_was_interrupted(
    client: Client, redis_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.enroll(1, [2])
    monkeypatch.setattr(redis_list, "_line", interrupt)
    with pytest.raises(KeyboardInterrupt):
        client.enroll(1, [3])
    monkeypatch.undo()
    redis_client.config_set("maxmemory", "1")
    try:
        with pytest.raises(BrokerAway, match="command not allowed"):
            client.enroll(1, [4])
    finally:
        redis_client.config_set("maxmemory", "0")


def test_a_client_made_before_a_fork_has_a_connection_of_its_own_after_it(client: Client, redis_client: Any) -> None:
    client.enroll(1, [2])
    child = os.fork()
    if child == 0:
        client.enroll(1, [3])
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    client.enroll(1, [4])
    assert [body(entry)[1]["course_ids"] for entry in entries(redis_client, QUEUE)] == [[2], [3], [4]]
