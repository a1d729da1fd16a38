import io
import json
import logging as stdlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog
from prometheus_client import CollectorRegistry, generate_latest

from enrollment.ids import uuid7
from worker import logging, metrics
from worker.consume.monitoring import ADDRESS
from worker.heartbeats import Heartbeats
from worker.histogram import BatchHistogram
from worker.liveness import FAILURES, Liveness, Sign, signs


def test_a_histogram_of_batches_counts_as_prometheus_does() -> None:
    registry = CollectorRegistry()
    histogram = BatchHistogram("x_seconds", "X.", buckets=(0.1, 1), registry=registry)
    histogram.observe([0.1, 0.5])
    histogram.observe([-1, 7])
    histogram.observe_same(0.5, 2)
    got = [registry.get_sample_value("x_seconds_bucket", {"le": le}) for le in ("0.1", "1.0", "+Inf")]
    assert got == [2, 5, 6]
    assert registry.get_sample_value("x_seconds_sum") == pytest.approx(7.6)
    assert b"x_seconds_count 6.0" in generate_latest(registry)


def test_the_time_in_an_id_of_version_7_is_read_and_of_no_other() -> None:
    assert metrics.sent_at(UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")) == 1645557742.0  # RFC 9562, A.6
    assert metrics.sent_at(uuid7()) is not None
    assert metrics.sent_at(uuid4()) is None


def test_sources_beyond_the_limit_are_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_sources", set())
    names = [metrics._source(f"s{n}") for n in range(metrics.SOURCES + 5)]
    assert names[-6:] == [f"s{metrics.SOURCES - 1}", *["other"] * 5]
    assert metrics._source("s0") == "s0"
    assert metrics._source(None) == ""


def test_two_workers_on_one_port_do_not_collide() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        address = metrics.serve("127.0.0.1", port)
    assert address is not None
    host, _, served = address.partition(":")
    assert host == "127.0.0.1"
    assert port < int(served) < port + metrics.PORTS


def test_heartbeats_tell_hosts_and_ports_and_nothing_else() -> None:
    heartbeats = Heartbeats("redis://localhost")
    said = {"a": "10.0.0.1:80", "b": None, "c": "evil/path?x:80", "d": "u:p@h:1", "e": "[::1]:9"}
    for node, address in said.items():
        heartbeats.heard({"hostname": node, ADDRESS: address})
    assert heartbeats.alive() == {**said, "c": None, "d": None}
    heartbeats.gone({"hostname": "a"})
    assert "a" not in heartbeats.alive()


def test_a_worker_that_falls_silent_is_told_and_one_that_ends_in_order_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    beats, now = Heartbeats("redis://localhost"), 1_000.0
    monkeypatch.setattr("worker.heartbeats.monotonic", lambda: now)
    for node in ("ends", "killed", "goes on"):
        beats.heard({"hostname": node})
    beats.gone({"hostname": "ends"})
    now += 11
    beats.heard({"hostname": "goes on"})
    assert (len(beats.alive()), beats.silent()) == (1, 1)
    now += 600
    assert (len(beats.alive()), beats.silent()) == (0, 1)  # the killed one is old news, the other is not


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Give what is logged, and leave logging as it was."""
    root = stdlib.getLogger()
    before, level, configured = root.handlers, root.level, structlog.get_config()
    yield io.StringIO()
    root.handlers, root.level = before, level
    structlog.configure(**configured)


def test_a_warning_names_its_section_and_is_counted(log: io.StringIO) -> None:
    warned: list[Any] = []
    logging.configure("INFO", "json", warned=warned.append)
    handler = stdlib.getLogger().handlers[0]
    assert isinstance(handler, stdlib.StreamHandler)
    handler.setStream(log)
    logger = structlog.get_logger("x")
    logger.warning("waiting_for_database", seconds=1)
    logger.info("batch_applied")
    first, second = map(json.loads, log.getvalue().splitlines())
    assert first["help"] == "docs/operations.md#waiting_for_database"
    assert "help" not in second
    assert [event["event"] for event in warned] == ["waiting_for_database"]


def test_a_process_tells_systemd_when_it_is_ready_and_goes_on(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        process = Liveness(tmp_path / "signs")
        (tmp_path / "signs").mkdir()
        process.start("w@h", notify=str(tmp_path / "notify"))
        process.taking()
        process.taking()  # within the second: no more is said
        process.stop()
        said = [systemd.recv(100) for _ in range(3)]
    assert said == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]
    assert signs(tmp_path / "signs") == []


def sign_after(folder: Path, *steps: str) -> Sign:
    folder.mkdir(exist_ok=True)
    process = Liveness(folder)
    process.start("w@h")
    for step in steps:
        getattr(process, step)()
    [sign] = signs(folder)
    return sign


def test_a_sign_says_what_the_process_does(tmp_path: Path) -> None:
    assert (sign_after(tmp_path).state, sign_after(tmp_path).ready) == ("starting", False)
    assert (sign_after(tmp_path, "taking").state, sign_after(tmp_path, "taking").ready) == ("taking", True)
    assert sign_after(tmp_path, "taking", "waiting").state == "waiting for the broker"


def test_claims_prove_nothing_after_batches_in_a_row_have_failed(tmp_path: Path) -> None:
    failed = ["failed"] * FAILURES
    assert sign_after(tmp_path, *failed, "taking").state == "starting"
    assert sign_after(tmp_path, *failed, "finished", "taking").state == "taking"
    assert sign_after(tmp_path, *failed[1:], "taking").state == "taking"


def test_no_sign_is_left_of_a_process_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "999999999").write_text("{}")
    assert signs(tmp_path) == []
    Liveness(tmp_path).start("w@h")
    assert not (tmp_path / "999999999").exists()
