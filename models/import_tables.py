"""The tables of imports: what was planned, and how far it got."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Identity, Index, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from models.tables import Base


class Import(Base):
    """One import of a file, or the undoing of one: what was planned, how far it got, what came of it."""

    __tablename__ = "imports"
    __table_args__ = (Index("imports_digest_idx", "digest"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    state: Mapped[str]  # planned, sending, sent, done
    path: Mapped[str]
    files: Mapped[list[str]] = mapped_column(ARRAY(Text))
    format: Mapped[str]
    digest: Mapped[str]
    source: Mapped[str]
    options: Mapped[dict[str, Any]] = mapped_column(JSONB)
    scope: Mapped[str | None]  # of a full snapshot: courses, source
    issued_at: Mapped[datetime]
    counts: Mapped[dict[str, Any]] = mapped_column(JSONB)  # what was planned
    withheld: Mapped[str | None]  # why the absent were not taken out
    outcomes: Mapped[dict[str, Any]] = mapped_column(JSONB)
    sent: Mapped[int] = mapped_column(server_default="0")  # all rows up to this number are sent
    decided: Mapped[int] = mapped_column(server_default="0")  # all rows up to this number have an outcome
    undo_of: Mapped[int | None] = mapped_column(ForeignKey("imports.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    finished_at: Mapped[datetime | None]


class ImportRow(Base):
    """One row of an import: what it asked and what was planned; the outcome is in `commands`, under `command_id`."""

    __tablename__ = "import_rows"
    __table_args__ = (
        Index("import_rows_student_id_idx", "student_id"),
        Index("import_rows_waiting_idx", "student", "import_id", postgresql_where=text("planned = 'waiting'")),
    )

    import_id: Mapped[int] = mapped_column(ForeignKey("imports.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    file: Mapped[int | None]  # which of `imports.files`, from 1; null for the absent
    line: Mapped[int | None]
    student: Mapped[str]
    course: Mapped[str]
    student_id: Mapped[int | None]
    course_id: Mapped[int | None]
    asked: Mapped[str | None]  # enroll, unenroll, drop, withdraw
    # enroll, unenroll, unchanged, superseded, scheduled, repeated, ignored, rejected, withheld, withdraw, waiting
    planned: Mapped[str]
    issued_at: Mapped[datetime | None]
    code: Mapped[str | None]
    message: Mapped[str | None]
    command_id: Mapped[UUID | None]
    effective_at: Mapped[datetime | None]
    target: Mapped[UUID | None]  # of a withdraw: the command that waits


class ImportEntry(Base):
    """One row for the catalog, from the plan of an import until it is done."""

    __tablename__ = "import_entries"
    __table_args__ = (Index("import_entries_import_id_idx", "import_id", "kind", "sis_id"),)

    import_id: Mapped[int] = mapped_column(ForeignKey("imports.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]  # student, course, section, role, other, gone_course, gone_section
    sis_id: Mapped[str]
    alias: Mapped[str | None]  # another id of the same student
    parent: Mapped[str | None]  # of a section: its course
    code: Mapped[str | None]
    title: Mapped[str | None]


class ImportScope(Base):
    """A course whose whole list of students an import had."""

    __tablename__ = "import_scopes"

    import_id: Mapped[int] = mapped_column(ForeignKey("imports.id", ondelete="CASCADE"), primary_key=True)
    course_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
