"""What every `alembic` command runs: one migrator at a time, short waits for locks, one transaction per revision."""

import time
from collections.abc import Callable, Iterable
from logging.config import fileConfig
from typing import Any, Final

from alembic import context
from alembic.operations.ops import MigrationScript
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from migrations.recording import BEGIN, COMMIT, recording
from models.db_errors import describe, is_locked
from models.engine import make_engine
from models.metadata import METADATA
from worker.settings import Settings, SettingsError

LOCK_TIMEOUT: Final = "2s"  # a revision that waits for a table makes everybody behind it wait as well
LOCK_TRIES: Final = 30  # of a table that is in use; between two of them, whoever waited gets on
LOCK_PAUSE: Final = 2.0  # seconds
STATEMENT_TIMEOUT: Final = "60s"  # a statement that must take longer says so (migrations.steps._without_timeouts)
ADVISORY_LOCK: Final = 4_815_162_342_001  # any number that nothing else in the database uses
MIGRATOR_WAIT: Final = 600.0  # seconds until the second of two migrators gives up
POLL: Final = 0.2  # seconds

# These may be older than this project: what others have in them is theirs, and no drift.
ADOPTED: Final = frozenset({"students", "courses", "student_courses"})


def main() -> None:
    """Run the command over the database of the settings, or over `config.attributes["url"]` where a caller gave one."""
    if context.is_offline_mode():
        raise CommandError(
            "The revisions look at what is already in the database, so Alembic's --sql cannot write them down; "
            "`enrollment migrate --sql` can."
        )
    if context.config.cmd_opts is not None and context.config.config_file_name is not None:
        fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    engine = make_engine(_url(), application_name="enrollment-migrations")
    try:
        with engine.connect() as connection:
            _become_the_only_migrator(connection)
            _migrate(connection)
    except DBAPIError as error:
        raise CommandError(
            f"PostgreSQL stopped the migration ({describe(error)}); mend the cause and run it again: it goes on."
        ) from error
    finally:
        engine.dispose()  # ends the session, and with it the advisory lock


def _url() -> str:
    given = context.config.attributes.get("url")
    try:
        settings = Settings.load() if given is None else Settings(database_url=given)
        return settings.require_database_url()
    except SettingsError as error:
        raise CommandError(str(error)) from None


def _become_the_only_migrator(connection: Connection) -> None:
    """Take the advisory lock of this database, for the session.

    It is asked for again and again, not waited for: a session that waits inside a statement holds a snapshot, and the
    other migrator's CREATE INDEX CONCURRENTLY would wait for that snapshot to end.
    """
    deadline = time.monotonic() + MIGRATOR_WAIT
    statement = text("SELECT pg_try_advisory_lock(:number)")
    while not connection.scalar(statement, {"number": ADVISORY_LOCK}):
        connection.rollback()
        if time.monotonic() > deadline:
            raise CommandError("Another migration has held this database for 10 minutes; let it end, then try again.")
        time.sleep(POLL)
    connection.commit()


def _migrate(connection: Connection) -> None:
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.execute(text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
    connection.commit()
    statements: list[str] | None = context.config.attributes.get("statements")
    if statements is None:
        _run_patiently(connection)
        return
    with recording(connection, statements):
        statements.append(BEGIN)
        _run(connection)
        statements.pop()


def _run_patiently(connection: Connection) -> None:
    """Begin a revision again whose table is locked. Those before it are done: each is a transaction of its own."""
    for left in reversed(range(LOCK_TRIES)):
        try:
            _run(connection)
        except DBAPIError as error:
            if not (is_locked(error) and left):
                raise
            connection.rollback()
            time.sleep(LOCK_PAUSE)
        else:
            return


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=METADATA,
        transaction_per_migration=True,
        compare_type=True,
        compare_server_default=True,
        include_object=_is_ours,
        process_revision_directives=_number,
        on_version_apply=_tell,
    )
    with context.begin_transaction():
        context.run_migrations()


def _tell(ctx: MigrationContext, step: MigrationInfo, heads: Any, run_args: Any) -> None:  # noqa: ARG001 (Alembic's)
    """After each revision: tell the caller, or set it off from the next where it is written down."""
    done: Callable[[Any], None] | None = context.config.attributes.get("done")
    if done is not None:
        done(step.up_revision)
    statements: list[str] | None = context.config.attributes.get("statements")
    if statements is not None:
        statements += [COMMIT, BEGIN]


def _is_ours(found: Any, name: str | None, kind: str, reflected: bool, compare_to: Any) -> bool:  # noqa: FBT001
    """Tell Alembic what to compare: our tables, and in those that may be older than us what the revisions promise."""
    if kind == "table":
        return name in METADATA.tables
    if found.table.name not in ADOPTED:
        return True
    if reflected and compare_to is None:
        return False
    if kind == "column" and compare_to is not None:
        ours, theirs = (compare_to, found) if reflected else (found, compare_to)
        without_default = ours.server_default is not None and theirs.server_default is None  # a serial shows none
        return not without_default and not (theirs.nullable and not ours.nullable)
    return True


def _number(
    _migration: MigrationContext, _revision: str | Iterable[str | None], directives: list[MigrationScript]
) -> None:
    """Give a new revision the next number."""
    scripts = ScriptDirectory.from_config(context.config)
    for script in directives:
        script.rev_id = f"{int(scripts.get_current_head() or 0) + 1:04d}"


main()
