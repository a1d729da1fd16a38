import io
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from worker.logging import configure


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, said = list(root.handlers), root.level, structlog.get_config()
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers, root.level = handlers, level
    structlog.configure(**said)


def log_all() -> None:
    log: Any = structlog.get_logger("ours")
    log.debug("unseen")
    log.warning("batch_failed", messages=2)
    try:
        int("no")
    except ValueError:
        log.exception("line_failed")
    logging.getLogger("redis").warning("foreign %s", "line")


def test_lines_of_ours_and_foreign_ones_look_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    configure("INFO", "json")
    log_all()
    ours, failed, foreign = map(json.loads, written.getvalue().splitlines())
    assert (ours["event"], ours["messages"], ours["logger"], ours["level"]) == ("batch_failed", 2, "ours", "warning")
    assert (failed["event"], failed["level"]) == ("line_failed", "error")
    assert "ValueError" in failed["exception"]
    assert (foreign["event"], foreign["logger"]) == ("foreign line", "redis")
    assert foreign.keys() == ours.keys() - {"messages", "help"}


def test_a_file_that_was_renamed_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    configure("INFO", "json", file=str(path))
    structlog.get_logger("ours").info("first")
    path.rename(tmp_path / "worker.log.1")
    structlog.get_logger("ours").info("second")
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == ["second"]


def test_warnings_are_counted_where_they_are_not_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    written, warned = io.StringIO(), list[Any]()
    monkeypatch.setattr(sys, "stderr", written)
    configure("ERROR", "json", warned=warned.append)
    log_all()
    assert [it["event"] for it in warned] == ["batch_failed", "line_failed"]
    assert [json.loads(line)["event"] for line in written.getvalue().splitlines()] == ["line_failed"]


def test_a_log_that_cannot_be_written_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Full())
        configure("INFO", "json")
    structlog.get_logger("ours").info("batch_applied", messages=7)
    assert "'messages': 7" in capsys.readouterr().err


def test_a_value_that_cannot_be_shown_stops_nothing() -> None:
    class Unspeakable:
        def __repr__(self) -> str:
            raise ValueError("no")

    for style in ("json", "console"):
        configure("INFO", style)
        structlog.get_logger(style).info("batch_applied", of=Unspeakable())
