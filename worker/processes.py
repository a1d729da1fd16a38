"""`-c N` with N above 1: N workers, each a process, and one process that starts, replaces and stops them.

They are forked before anything is connected, so their options are those that Celery has read. Each has a node name of
its own, `celery-1@host` and so on; apart from that it is what `celery -A worker worker` starts.
"""

import atexit
import gc
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap
from select import select
from threading import Thread
from time import monotonic, sleep
from typing import Any, Final

import structlog
from billiard.process import current_process
from celery import Celery, signals
from celery.app.log import Logging
from celery.platforms import Pidfile, create_pidlock, isatty
from celery.utils.nodenames import nodesplit

_STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)  # each means to the workers what it means to one
_WATCHED: Final = (*_STOPPING, signal.SIGUSR1, signal.SIGCHLD)
_LASTED: Final = 10.0  # seconds after which a process that dies is replaced at once
_PAUSES: Final = (0.5, 30.0)  # seconds, the first and the longest, until one is replaced that dies sooner

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Process:
    index: int
    started: float
    pause: float


class Processes:
    """Stands where Celery has its worker program, with the same options."""

    def __init__(
        self, app: Celery, worker: Callable[..., Any], count: int, *, pidfile: str | None = None, **options: Any
    ) -> None:
        self.exitcode = 0
        self._app, self._worker, self._count, self._pidfile, self._options = app, worker, count, pidfile, options
        name, host = nodesplit(options["hostname"])
        self._name, self._host = str(name), str(host)
        self._lock: Pidfile | None = None
        self._running: dict[int, _Process] = {}
        self._stops = self._restarts = False
        self._was_ready = mmap(-1, 1)  # shared with the processes: whether any of them ever took messages
        self._alive = os.pipe()  # its writing end is held here alone, so reading ends when this process does
        self._arrived, self._arrives = os.pipe()  # the numbers of signals
        self._handlers: dict[int, Any] = {}

    def start(self) -> None:
        """Run until all processes have ended. Does not return in these."""
        self._app.loader.import_default_modules()
        gc.freeze()  # the processes share the memory of what is loaded, until the collector touches it
        self._app.log.setup(self._options.get("loglevel"), self._options.get("logfile"), hostname=self._node())
        if self._pidfile:
            self._lock = create_pidlock(self._pidfile)
        os.set_blocking(self._arrives, False)
        signal.set_wakeup_fd(self._arrives)
        restart = () if isatty(sys.stdout) else (signal.SIGHUP,)  # as Celery has it: a closed terminal restarts nothing
        self._handlers = {each: signal.signal(each, lambda *_: None) for each in (*_WATCHED, *restart)}
        for index in range(1, self._count + 1):
            while select([self._arrived], [], [], 0)[0]:
                self._take_arrived()
            if self._stops:
                break
            self._fork(index)
        while self._running:
            self._take_arrived()
        if self._restarts:
            os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - the same program again

    def _take_arrived(self) -> None:
        for number in os.read(self._arrived, 64):
            self._take(signal.Signals(number))

    def _take(self, number: signal.Signals) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGHUP:
            self._restarts = True
            self._stop(signal.SIGTERM)
        elif number == signal.SIGUSR1:
            self._send(number)
        else:
            self._stop(number)

    def _stop(self, number: signal.Signals) -> None:
        self._stops = True
        self._send(number)

    def _send(self, number: signal.Signals) -> None:
        for pid in self._running:
            os.kill(pid, number)

    def _reap(self) -> None:
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            process = self._running.pop(pid, None)  # None: the first process of a container inherits orphans
            if process is not None:
                self._ended(process, pid, os.waitstatus_to_exitcode(status))

    def _ended(self, process: _Process, pid: int, code: int) -> None:
        """Replace a process that died. One that ended in order was asked to, here or by `celery control shutdown`."""
        if self._stops or code == 0:
            self.exitcode = max(self.exitcode, code)
        elif code > 0 and not self._was_ready[0]:
            self.exitcode = code  # it cannot start, nor can its like; it has said why
            self._stop(signal.SIGTERM)
        else:
            first, longest = _PAUSES
            lasted = monotonic() - process.started - process.pause > _LASTED
            pause = 0.0 if lasted else min(max(2 * process.pause, first), longest)
            log.warning("process_died", node=self._node(process.index), pid=pid, code=code, replaced_in=pause)
            self._fork(process.index, pause)

    def _fork(self, index: int, pause: float = 0.0) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._handlers)
        pid = os.fork()
        if pid == 0:
            self._become_process()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if pid == 0:
            sleep(pause)
            self._work(index)
        self._running[pid] = _Process(index, monotonic(), pause)

    def _become_process(self) -> None:
        """Keep nothing of what the first process does with signals, its terminal and its pidfile."""
        signal.set_wakeup_fd(-1)
        for each, handler in self._handlers.items():
            signal.signal(each, handler)
        for end in (self._alive[1], self._arrived, self._arrives):
            os.close(end)
        os.setsid()  # Ctrl-C reaches the first process alone, which passes it on
        if self._lock is not None:
            atexit.unregister(self._lock.release)
        Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        os.read(self._alive[0], 1)
        os.kill(os.getpid(), signal.SIGTERM)

    def _work(self, index: int) -> None:
        vars(current_process())["index"] = index - 1  # %I of a log file's name
        Logging._setup = False  # type: ignore[attr-defined]  # noqa: SLF001 - once more, for this process
        signals.worker_ready.connect(self._note_ready)
        statedb = self._options.get("statedb")
        own = {"hostname": self._node(index), "statedb": statedb and f"{statedb}-{index}"}
        worker = self._worker(**{**self._options, **own, "concurrency": 1})
        worker._isatty = True  # noqa: SLF001 - else SIGHUP would start all N anew in its place
        worker.start()
        sys.exit(worker.exitcode or 0)

    def _note_ready(self, **_: Any) -> None:
        self._was_ready[0] = 1

    def _node(self, index: int | None = None) -> str:
        return f"{self._name}@{self._host}" if index is None else f"{self._name}-{index}@{self._host}"
