"""The schema of the database: brought to the newest revision, compared with it, or written down as SQL."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection

import migrations

FOLDER: Final = Path(migrations.__file__).parent


@dataclass(frozen=True, slots=True)
class Revision:
    """One step of the schema's history. `stops`: why workers of the version before must be stopped for it, if so."""

    id: str
    title: str
    stops: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """Where a database stands: None where it has no table of ours yet. Pending are oldest first."""

    current: str | None
    newest: str | None
    pending: tuple[Revision, ...]


def upgrade(database_url: str, revision: str = "head", done: Callable[[Revision], None] = lambda _: None) -> None:
    """Bring the tables to `revision`; call `done` after each step. One migrator at a time; another is waited for.

    Raises alembic.util.CommandError, in one sentence.
    """
    command.upgrade(_config(database_url, done=lambda step: done(_revision(step))), revision)


def script(database_url: str, revision: str = "head") -> list[str]:
    """Return the SQL, a statement an item, that `upgrade` would run on this database as it is now. Nothing changes.

    Raises alembic.util.CommandError, in one sentence.
    """
    statements: list[str] = []
    command.upgrade(_config(database_url, statements=statements), revision)
    return statements


def status(connection: Connection) -> Status:
    """Compare a database with the revisions of this version."""
    scripts = ScriptDirectory(str(FOLDER))
    current = MigrationContext.configure(connection).get_current_revision()
    newest = scripts.get_current_head()
    known = {revision.revision for revision in scripts.walk_revisions()}
    if current is not None and current not in known:
        return Status(current, newest, ())
    ahead = scripts.iterate_revisions(newest, current or "base")
    return Status(current, newest, tuple(map(_revision, reversed(list(ahead)))))


def _revision(step: Script) -> Revision:
    return Revision(step.revision, step.doc.rstrip("."), migrations.STOPS_OLD_WORKERS.get(step.revision))


def _config(database_url: str, **attributes: object) -> Config:
    config = Config(attributes={"url": database_url, **attributes})
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
