"""Keeps a copy of who is enrolled in what, in SQLite, by following the result events.

    python examples/python/copy_to_sqlite.py copy.sqlite
    python examples/python/copy_to_sqlite.py copy.sqlite --begin-with rows.csv

Rows and position change in one transaction: killed at any moment, it goes on exactly where it was. The second form
begins with rows of `student_courses` (student_id, course_id; no heading), for a stream that is shorter than history.
"""

import argparse
import csv
import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from redis.exceptions import RedisError

from enrollment.consumer import BEGINNING, Entry, Reader
from enrollment.copy import decisions, sortable
from enrollment.errors import EnrollmentError
from worker.settings import Settings

PAUSE: Final = 1.0  # seconds before Redis is asked again after an error
BEFORE: Final = (
    3600  # seconds before rows were loaded from which events are read: none may be published later than that
)

# A course that the student is not enrolled in stays, for its stamp: an older event may still come.
SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS pairs (
        student_id INTEGER NOT NULL, course_id INTEGER NOT NULL, enrolled INTEGER NOT NULL, stamp TEXT NOT NULL,
        PRIMARY KEY (student_id, course_id)
    ) WITHOUT ROWID;
    CREATE VIEW IF NOT EXISTS enrollments AS SELECT student_id, course_id FROM pairs WHERE enrolled;
    CREATE TABLE IF NOT EXISTS position (one INTEGER PRIMARY KEY CHECK (one = 1), entry_id TEXT NOT NULL);
"""
# The whole rule: the decision with the highest stamp counts.
TAKE: Final = """
    INSERT INTO pairs (student_id, course_id, enrolled, stamp) VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET enrolled = excluded.enrolled, stamp = excluded.stamp WHERE excluded.stamp > pairs.stamp
"""
MOVE: Final = "INSERT INTO position VALUES (1, ?) ON CONFLICT DO UPDATE SET entry_id = excluded.entry_id"


def open_copy(file: str) -> sqlite3.Connection:
    """Open the copy, or make an empty one."""
    copy = sqlite3.connect(file)
    copy.executescript(SCHEMA)
    return copy


def position(copy: sqlite3.Connection) -> str:
    """Return up to where the copy has read."""
    found = copy.execute("SELECT entry_id FROM position").fetchone()
    return str(found[0]) if found else BEGINNING


def take(copy: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    """Bring the copy up to these entries: all of it or nothing."""
    decided = [it for entry in entries if entry.event for it in decisions(entry.event)]
    with copy:  # a transaction
        copy.executemany(TAKE, [(it.student_id, it.course_id, it.enrolled, sortable(it.stamp)) for it in decided])
        copy.execute(MOVE, [entries[-1].id])


def begin_with(copy: sqlite3.Connection, rows: Path, reader: Reader) -> None:
    """Begin the copy anew with the rows of a file; any event is newer than they are. Raises EventsMissed."""
    reader.begin(datetime.fromtimestamp(rows.stat().st_mtime, UTC))
    with copy, rows.open(encoding="utf-8", newline="") as lines:
        copy.execute("DELETE FROM pairs")
        copy.executemany("INSERT INTO pairs VALUES (?, ?, 1, '')", csv.reader(lines))
        copy.execute(MOVE, [reader.position])


def follow(copy: sqlite3.Connection, reader: Reader) -> None:
    """Follow the stream for ever. Raises EventsMissed."""
    while True:
        try:
            entries = reader.read()
        except RedisError as error:
            print(f"Waiting for Redis: {error}", file=sys.stderr)
            time.sleep(PAUSE)
            continue
        if entries:
            take(copy, entries)
            print(f"{len(entries)} events, up to {reader.position}", flush=True)


def main() -> None:
    """Run until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Keep a copy of who is enrolled in what, in SQLite.")
    parser.add_argument("file", help="the copy; made where there is none")
    parser.add_argument("--begin-with", type=Path, metavar="CSV", help="begin anew with these rows")
    arguments = parser.parse_args()
    with closing(open_copy(arguments.file)) as copy:
        try:
            settings = Settings.load()
            url, stream = settings.require_events_url(), settings.events_stream
            with Reader(url, stream=stream, position=position(copy)) as reader:
                if arguments.begin_with:
                    begin_with(copy, arguments.begin_with, reader)
                follow(copy, reader)
        except EnrollmentError as error:
            sys.exit(str(error))
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
