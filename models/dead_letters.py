"""Dead letters: one row per message that is not a valid command, or that could not be processed."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from enrollment.commands import MAX_ID
from enrollment.errors import DeadLetterCode, UnknownDeadLetter
from enrollment.parsing import canonical
from models import audit
from models.arrays import nested, nullable, plain, quoted

# A message delivered again is the same dead letter: the first row stands. And a command whose acknowledgement was lost
# may come again after it was processed, as may a message of many; that it then expired, say, makes it no dead letter.
# Nor if it waits to be processed.
# But one that was replayed, and could not be processed this time either, is open again.
_PUT: Final = text("""
    INSERT INTO dead_letters (message_key, code, message, command_id, task, payload, headers)
    SELECT key, code, message, command_id, task, payload, headers
      FROM unnest(CAST(:keys AS text[]), CAST(:codes AS text[]), CAST(:messages AS text[]),
                         CAST(:commands AS uuid[]), CAST(:tasks AS text[]), CAST(:payloads AS text[]),
                         CAST(:headers AS text[]), CAST(:ids AS text[]), CAST(:hashes AS text[]))
        AS t(key, code, message, command_id, task, payload, headers, ids, hashes)
     WHERE NOT (code = ANY(CAST(:not_when_processed AS text[])) AND ids <> '{}'
                AND NOT EXISTS (SELECT FROM unnest(ids::uuid[], hashes::text[]) AS said(id, hash)
                                  LEFT JOIN LATERAL (
                                      SELECT content_hash FROM commands AS c WHERE c.command_id = said.id
                                       UNION ALL
                                      SELECT content_hash FROM deferred_commands AS d WHERE d.command_id = said.id
                                       LIMIT 1) AS done ON true
                                 WHERE done.content_hash IS DISTINCT FROM decode(said.hash, 'hex')))
    ON CONFLICT (message_key) DO UPDATE
       SET message = EXCLUDED.message, received_at = EXCLUDED.received_at,
           replayed_at = NULL, replayed_as = NULL, discarded_at = NULL
     WHERE EXCLUDED.code = :again AND (dead_letters.replayed_at IS NOT NULL OR dead_letters.discarded_at IS NOT NULL)
""")
_NOT_WHEN_PROCESSED: Final = plain(
    [
        DeadLetterCode.EXPIRED,
        DeadLetterCode.REVOKED,
        DeadLetterCode.TOO_MANY_DELIVERIES,
        DeadLetterCode.PROCESSING_FAILED,
    ]
)


@dataclass(frozen=True, slots=True)
class NewDeadLetter:
    """A dead letter to be kept. `key` is what makes a redelivery the same message."""

    key: str
    code: DeadLetterCode
    message: str
    payload: str
    command_id: UUID | None = None
    task: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    contents: Sequence[tuple[UUID, bytes]] = ()  # id and hash of each command in it, where it is nothing but commands


def put(connection: Connection, letters: Sequence[NewDeadLetter]) -> None:
    """Keep these dead letters, each once per key."""
    if not letters:
        return
    unique: dict[str, NewDeadLetter] = {}
    for letter in letters:
        unique.setdefault(letter.key, letter)
    letters = list(unique.values())
    connection.execute(
        _PUT,
        {
            "again": DeadLetterCode.PROCESSING_FAILED,
            "not_when_processed": _NOT_WHEN_PROCESSED,
            "keys": quoted(storable(letter.key) for letter in letters),
            "codes": plain(letter.code for letter in letters),
            "messages": quoted(storable(letter.message) for letter in letters),
            "commands": nullable(letter.command_id for letter in letters),
            "tasks": quoted(None if letter.task is None else storable(letter.task) for letter in letters),
            "payloads": quoted(storable(letter.payload) for letter in letters),
            "ids": nested([id_.hex for id_, _ in letter.contents] for letter in letters),
            "hashes": nested([content.hex() for _, content in letter.contents] for letter in letters),
            "headers": quoted(headers_as_json(letter.headers) for letter in letters),
        },
    )


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as it is kept. `payload` and `headers` are JSON where the message was."""

    id: int
    code: str
    message: str
    command_id: UUID | None
    task: str | None
    payload: str
    headers: str
    received_at: datetime
    replayed_at: datetime | None
    replayed_as: tuple[UUID, ...] | None  # the commands that were sent for it
    discarded_at: datetime | None

    @property
    def is_open(self) -> bool:
        """Whether nobody has decided about it yet."""
        return self.replayed_at is None and self.discarded_at is None


class CodeCount(NamedTuple):
    """How many dead letters have one code, and when the newest of them came."""

    code: str
    letters: int
    newest: datetime


_COLUMNS: Final = """id, code, message, command_id, task, payload, headers, received_at,
    replayed_at, replayed_as, discarded_at"""
_OPEN: Final = "replayed_at IS NULL AND discarded_at IS NULL"
_COUNTS: Final = text(f"""
    SELECT code, count(*), max(received_at) FROM dead_letters WHERE {_OPEN} GROUP BY code ORDER BY count(*) DESC, code
""")
# A source is in the payload, which may be no JSON. A rare one is looked for in the newest only: the table may be long.
_NEWEST: Final = text(f"""
    SELECT {_COLUMNS} FROM (
           SELECT {_COLUMNS} FROM dead_letters
            WHERE (CAST(:code AS text) IS NULL OR code = :code) AND {_OPEN}
              AND (CAST(:before AS bigint) IS NULL OR id < CAST(:before AS bigint))
              AND received_at >= coalesce(CAST(:since AS timestamptz), '-infinity')
              AND received_at < coalesce(CAST(:until AS timestamptz), 'infinity')
            ORDER BY id DESC LIMIT CAST(:looked_at AS bigint)
           ) AS d
     WHERE CAST(:source AS text) IS NULL OR payload ~ ('"source"\\s*:\\s*"' || :source || '"')
     ORDER BY id DESC LIMIT CAST(:limit AS bigint)
""")
LOOKED_AT: Final = 20_000  # dead letters in which a source is looked for
_OPEN_IDS: Final = text(f"""
    SELECT id FROM dead_letters WHERE (CAST(:code AS text) IS NULL OR code = :code) AND {_OPEN} ORDER BY id
""")
_ONE: Final = text(f"SELECT {_COLUMNS} FROM dead_letters WHERE id = CAST(:id AS bigint)")
_LOCK: Final = text(f"SELECT {_COLUMNS} FROM dead_letters WHERE id = CAST(:id AS bigint) FOR UPDATE")
_OF_COMMAND: Final = text("SELECT id FROM dead_letters WHERE command_id = :command_id ORDER BY id DESC LIMIT 1")
_PROCESSED: Final = text("SELECT command_id FROM commands WHERE command_id = ANY(CAST(:commands AS uuid[]))")
_REPLAYED: Final = text("""
    UPDATE dead_letters SET replayed_at = clock_timestamp(), replayed_as = CAST(:commands AS uuid[]) WHERE id = :id
""")
_DISCARD: Final = text(f"""
    UPDATE dead_letters SET discarded_at = clock_timestamp()
     WHERE id = ANY(CAST(:ids AS bigint[])) AND {_OPEN} RETURNING id
""")


def counts(connection: Connection) -> list[CodeCount]:
    """Return how many open dead letters there are of each code, the most frequent first."""
    return [CodeCount._make(row) for row in connection.execute(_COUNTS)]


def newest(
    connection: Connection,
    *,
    code: str | None = None,
    source: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    before: int | None = None,
    limit: int = 10,
) -> list[DeadLetter]:
    """Return the newest open dead letters, the newest first.

    Of one code; of a source that they name, among the newest LOOKED_AT; received from `since` on and before `until`;
    with ids below `before`.
    """
    start = None if before is None else max(0, min(before, MAX_ID))
    said = {"code": code, "source": None if source is None else re.escape(source), "since": since, "until": until}
    rows = connection.execute(
        _NEWEST, {**said, "before": start, "limit": limit, "looked_at": limit if source is None else LOOKED_AT}
    )
    return [_letter(row) for row in rows]


def open_ids(connection: Connection, *, code: str | None = None) -> list[int]:
    """Return the ids of all open dead letters (of one code), the oldest first."""
    return list(connection.execute(_OPEN_IDS, {"code": code}).scalars())


def get(connection: Connection, dead_letter_id: int) -> DeadLetter:
    """Return one dead letter. Raises UnknownDeadLetter."""
    return _one(connection, _ONE, dead_letter_id)


def lock(connection: Connection, dead_letter_id: int) -> DeadLetter:
    """Return one dead letter, which nobody else decides about until the transaction ends. Raises UnknownDeadLetter."""
    return _one(connection, _LOCK, dead_letter_id)


def of_command(connection: Connection, command_id: UUID) -> int | None:
    """Return the id of the newest dead letter that this command alone has become, if any."""
    return connection.execute(_OF_COMMAND, {"command_id": command_id}).scalar_one_or_none()


def processed(connection: Connection, command_ids: Iterable[UUID]) -> set[UUID]:
    """Return those of the commands that were processed."""
    return set(connection.execute(_PROCESSED, {"commands": plain(command_ids)}).scalars())


def mark_replayed(connection: Connection, dead_letter_id: int, command_ids: Iterable[UUID]) -> None:
    """Note that these commands were sent for a dead letter."""
    connection.execute(_REPLAYED, {"id": dead_letter_id, "commands": plain(command_ids)})


def discard(connection: Connection, dead_letter_ids: Iterable[int], *, by: str) -> int:
    """Note that nothing is to come of these, and who said so; they are kept. Return how many of them were open."""
    ids = [id_ for id_ in dead_letter_ids if 0 < id_ <= MAX_ID]
    discarded = connection.execute(_DISCARD, {"ids": plain(ids)}).scalars().all()
    audit.add(connection, by, audit.DISCARDED, map(audit.dead_letter, discarded))
    return len(discarded)


def _one(connection: Connection, statement: TextClause, dead_letter_id: int) -> DeadLetter:
    in_range = 0 < dead_letter_id <= MAX_ID
    row = connection.execute(statement, {"id": dead_letter_id}).one_or_none() if in_range else None
    if row is None:
        raise UnknownDeadLetter(dead_letter_id)
    return _letter(row)


def _letter(row: Sequence[Any]) -> DeadLetter:
    letter = DeadLetter(*row)
    return letter if letter.replayed_as is None else replace(letter, replayed_as=tuple(letter.replayed_as))


def headers_as_json(headers: Mapping[str, Any]) -> str:
    """Write headers as JSON, each by itself: what cannot be written, such as one nested too deep, is said to be so."""
    return "{" + ", ".join(f"{canonical(str(name))}: {canonical(value)}" for name, value in headers.items()) + "}"


def storable(value: str) -> str:
    """Return the text with what neither UTF-8 nor PostgreSQL can hold (lone surrogates, U+0000) made visible."""
    return value.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
