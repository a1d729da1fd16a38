"""Producers as anyone would write them: stock Celery, knowing nothing of the worker; they resend until confirmed."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from celery import Celery
from kombu import Exchange, Queue

from enrollment.names import BULK_QUEUE, QUEUE, QUEUE_ARGUMENTS
from tests.acceptance.faults.commands import Generator, Message
from tests.acceptance.faults.sent_log import SentLog

PAUSE = 0.1  # seconds before a message is sent again
CONFIRMED = 5.0  # seconds for RabbitMQ to confirm a message
GIVE_UP = 60.0  # seconds after the end of the traffic


class Sender:
    """One connection to the broker, made anew after every error."""

    def __init__(self, url: str, sent_log: SentLog) -> None:
        self._app: Any = Celery("portal", broker=url, set_as_current=False)
        self._app.conf.update(task_ignore_result=True, broker_transport_options={"socket_timeout": 5.0})
        self._options: dict[str, Any] = {}
        if url.startswith("amqp"):  # as docs/scaling.md asks it of producers
            self._app.conf.broker_transport_options = {"confirm_publish": True}
            self._app.conf.task_queues = [
                Queue(name, Exchange(name), name, queue_arguments=dict(QUEUE_ARGUMENTS)) for name in (QUEUE, BULK_QUEUE)
            ]
            self._options = {"mandatory": True, "confirm_timeout": CONFIRMED}
        self._book = sent_log
        self._connection: Any = None

    def send(self, message: Message, *, until: float | None = None) -> None:
        """Send until the broker confirms. Raises TimeoutError after the monotonic time `until`."""
        self._book.sending(message)
        while True:
            try:
                self._try(message)
            except Exception as error:
                self.close()
                if until is not None and time.monotonic() > until:
                    raise TimeoutError("The broker never confirmed a message.") from error
                time.sleep(PAUSE)
                self._book.sending(message)
            else:
                self._book.sent(message)
                return

    def _try(self, message: Message) -> None:
        if self._connection is None:
            self._connection = self._app.connection_for_write()
        self._app.send_task(
            message.task,
            args=message.args,
            kwargs=message.kwargs,
            task_id=message.task_id,
            queue=message.queue,
            connection=self._connection,
            retry=False,
            **self._options,
        )

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.release()


class Traffic:
    """Producers that keep sending from their own threads while a fault is at work."""

    def __init__(self, sender: Callable[[], Sender], seed: int, *, producers: int = 2, rate: float = 40) -> None:
        """Let each producer send `rate` messages per second, in bursts of random size."""
        self._stop = threading.Event()
        self._deadline: float | None = None
        self._failed: list[BaseException] = []
        self._rate = rate
        self._threads: Sequence[threading.Thread] = [
            threading.Thread(target=self._run, args=(sender(), seed * 100 + number), daemon=True)
            for number in range(producers)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._deadline = time.monotonic() + GIVE_UP
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._failed and error is None:
            raise self._failed[0]

    def _run(self, sender: Sender, seed: int) -> None:
        rng = random.Random(seed)  # noqa: S311 - it is to be repeatable
        generator = Generator(rng)
        try:
            while not self._stop.is_set():
                burst = rng.choice([1, 1, 2, 5, 20])
                for _ in range(burst):
                    self._send(sender, generator.message())
                self._stop.wait(burst / self._rate * rng.uniform(0.5, 1.5))
        except BaseException as error:  # noqa: BLE001 - raised again where the traffic is stopped
            self._failed.append(error)
        finally:
            sender.close()

    def _send(self, sender: Sender, message: Message) -> None:
        """Send one message; once the traffic has ended, do not try for ever."""
        while True:
            try:
                return sender.send(message, until=self._deadline or time.monotonic() + 1)
            except TimeoutError:
                if self._deadline is not None:
                    raise
