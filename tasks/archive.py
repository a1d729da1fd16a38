"""An archive of commands: one result event a line, as it stood on the stream; checked against the database."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from sqlalchemy import Engine

from enrollment.errors import EnrollmentError
from enrollment.events import event_json
from models import archive


class ArchiveError(EnrollmentError):
    """The archive cannot be written, or is not complete."""


@dataclass(frozen=True, slots=True)
class Archived:
    """What a file holds."""

    commands: int
    sha256: str


def write(engine: Engine, before: datetime, path: Path) -> Archived:
    """Write the commands processed before a time to a new file, and read it again. Raises ArchiveError."""
    before = before if before.tzinfo else before.replace(tzinfo=UTC)
    if before > datetime.now(UTC):
        raise ArchiveError(f"{before:%Y-%m-%dT%H:%M:%SZ} is still to come; say a time that is past.")
    if path.exists():
        raise ArchiveError(f"{path} is there, and may hold what is no longer in the database; say another name.")
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("x", encoding="utf-8") as file:
            file.writelines(f"{event_json(record)}\n" for record in archive.commands_before(engine, before))
    except FileExistsError:
        raise ArchiveError(f"{part} is there, of an export that was cut off; remove it, then try again.") from None
    archived, digest = _read(part)
    if (archived.commands, digest) != archive.check(engine, before):
        raise ArchiveError(f"{part} is not what the database has; was something removed meanwhile? Export it again.")
    part.rename(path)
    return archived


def _read(path: Path) -> tuple[Archived, int]:
    whole = sha256()
    count = digest = 0
    with path.open("rb") as file:
        for line in file:
            whole.update(line)
            count += 1
            digest = archive.added(digest, UUID(json.loads(line)["id"]))
    return Archived(count, whole.hexdigest()), digest
