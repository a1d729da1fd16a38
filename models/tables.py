"""The tables. Relationships are `lazy="raise"`: a query says what it loads, and a hidden one is an error.

They are for other programs (docs/models.md), which may delete a student or a course: PostgreSQL then decides about the
enrollments (`passive_deletes`), not SQLAlchemy, which would set their keys to null.
"""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, LargeBinary, MetaData, Text, Uuid, false, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

BIGINTS = ARRAY(BigInteger)
TIME = TIMESTAMP(timezone=True)
THIS_TRANSACTION = text("((pg_current_xact_id())::text)::bigint")


class Base(DeclarativeBase):
    """What all tables share: the types, and constraint names that migrations can rely on."""

    metadata = MetaData(
        naming_convention={
            "ix": "%(table_name)s_%(column_0_name)s_idx",
            "uq": "%(table_name)s_%(column_0_name)s_key",
            "fk": "%(table_name)s_%(column_0_name)s_fkey",
            "pk": "%(table_name)s_pkey",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {int: BigInteger, str: Text, datetime: TIME, bytes: LargeBinary}


class Student(Base):
    """A student; `sis_id` is the name under which the student information system knows them."""

    __tablename__ = "students"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    sis_id: Mapped[str | None] = mapped_column(unique=True)
    name: Mapped[str] = mapped_column(server_default="")

    enrollments: Mapped[list["StudentCourse"]] = relationship(
        back_populates="student", lazy="raise", passive_deletes="all"
    )
    courses: Mapped[list["Course"]] = relationship(
        secondary="student_courses", back_populates="students", lazy="raise", viewonly=True
    )


class Course(Base):
    """A course, as it can be enrolled in."""

    __tablename__ = "courses"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    sis_id: Mapped[str | None] = mapped_column(unique=True)
    code: Mapped[str] = mapped_column(server_default="")
    title: Mapped[str] = mapped_column(server_default="")

    enrollments: Mapped[list["StudentCourse"]] = relationship(
        back_populates="course", lazy="raise", passive_deletes="all"
    )
    students: Mapped[list[Student]] = relationship(
        secondary="student_courses", back_populates="courses", lazy="raise", viewonly=True
    )


class ClosedCourse(Base):
    """A course that takes no more enrollments; those that it has stay, and can be taken back."""

    __tablename__ = "closed_courses"

    course_id: Mapped[int] = mapped_column(
        ForeignKey("courses.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    closed_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class StudentCourse(Base):
    """One enrollment: a row is there if and only if the student is enrolled now.

    The stamp is that of the command to which the pair belongs; null where the row is older than the worker.
    """

    __tablename__ = "student_courses"
    __table_args__ = (Index("student_courses_course_id_student_id_idx", "course_id", "student_id"),)

    student_id: Mapped[int] = mapped_column(ForeignKey("students.id"), primary_key=True)
    course_id: Mapped[int] = mapped_column(ForeignKey("courses.id"), primary_key=True)
    issued_at: Mapped[datetime | None]
    command_id: Mapped[UUID | None]

    student: Mapped[Student] = relationship(back_populates="enrollments", lazy="raise")
    course: Mapped[Course] = relationship(back_populates="enrollments", lazy="raise")


class Tombstone(Base):
    """A pair that was taken apart, with its stamp, so that a late, older enroll does not bring it back.

    It stays when the student or the course is deleted: the id may come back, and the late enroll after it.
    """

    __tablename__ = "tombstones"

    student_id: Mapped[int] = mapped_column(primary_key=True)
    course_id: Mapped[int] = mapped_column(primary_key=True)
    issued_at: Mapped[datetime]
    command_id: Mapped[UUID]


class ReplaceMark(Base):
    """The stamp of a student's latest replace: it decides every pair of the student that has no later stamp.

    It stays when the student is deleted, as tombstones do.
    """

    __tablename__ = "replace_marks"

    student_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    issued_at: Mapped[datetime]
    command_id: Mapped[UUID]


class CommandRecord(Base):
    """One processed command: what was asked, and what came of it. Null is what an invalid command did not say."""

    __tablename__ = "commands"
    __table_args__ = (
        Index("commands_student_id_issued_at_idx", "student_id", "issued_at", "command_id"),
        Index("commands_processed_at_idx", "processed_at"),
        Index("commands_position_command_id_idx", "position", "command_id"),
    )

    command_id: Mapped[UUID] = mapped_column(primary_key=True)
    command: Mapped[str | None]
    student_id: Mapped[int | None]
    course_ids: Mapped[list[int] | None] = mapped_column(BIGINTS)
    issued_at: Mapped[datetime | None]
    source: Mapped[str | None]
    outcome: Mapped[str]
    enrolled: Mapped[list[int]] = mapped_column(BIGINTS)
    unenrolled: Mapped[list[int]] = mapped_column(BIGINTS)
    unchanged: Mapped[list[int]] = mapped_column(BIGINTS)
    superseded: Mapped[list[int]] = mapped_column(BIGINTS)
    errors: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    processed_at: Mapped[datetime]
    content_hash: Mapped[bytes]
    trace: Mapped[str | None]  # W3C traceparent, and after a blank tracestate
    waiting: Mapped[dict[str, Any] | None] = mapped_column(JSONB)  # of one that waits: what for, and until when
    target: Mapped[UUID | None]  # of a withdraw: the command that it is about
    position: Mapped[int] = mapped_column(server_default=THIS_TRANSACTION)  # in the change feed; 0: older than the feed


class ForgottenCommand(Base):
    """The id of a command that is removed and said no time: without it, nothing would tell a repeat."""

    __tablename__ = "forgotten_commands"

    command_id: Mapped[UUID] = mapped_column(primary_key=True)
    content_hash: Mapped[bytes]


class Retention(Base):
    """One row: before which time everything is refused, because ids may be forgotten, and how far the walk is."""

    __tablename__ = "retention"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    forgotten_before: Mapped[datetime] = mapped_column(server_default=text("'0001-01-01 00:00:00+00'::timestamptz"))
    part: Mapped[int] = mapped_column(server_default="0")  # which table: models.retention.Part
    after_a: Mapped[int] = mapped_column(server_default="-1")  # its last key: a number
    after_b: Mapped[str] = mapped_column(server_default="")  # and what comes after it in the key
    passed_at: Mapped[datetime | None]  # when the walk last came to the end
    removed: Mapped[int] = mapped_column(server_default="0")  # rows, ever
    gone_to: Mapped[int] = mapped_column(server_default="0")  # up to this position, commands may be missing


class Epoch(Base):
    """One row: the name of this history of the database (models/epoch.py). Another begins when it was restored."""

    __tablename__ = "epoch"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[int]  # any number but that of another history
    cluster: Mapped[int]  # the system identifier that PostgreSQL had when this epoch was last looked after
    timeline: Mapped[int]  # and the timeline
    began_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class OutboxBatch(Base):
    """The events of one batch that are committed and not yet known to be published.

    They are made anew from `commands`. Those which say that a command waits are kept here: it may be decided by then.
    """

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    batch_id: Mapped[UUID] = mapped_column(unique=True)
    command_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    events: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    committed_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class DeferredCommand(Base):
    """A command that cannot be decided yet, of a message that is acknowledged: it waits here.

    It waits for a lock of others, for a student or course, or for its time. It refers to no other table, so that it can
    be written while those are locked. `command_id` is null where there is none, or where another waits under it.
    """

    __tablename__ = "deferred_commands"
    __table_args__ = (
        Index("deferred_commands_reason_waits_for_first_seen_idx", "reason", "waits_for", "first_seen"),
        Index(
            "deferred_commands_until_idx",
            "until",
            postgresql_where=text("reason IN ('time', 'unknown_course', 'unknown_student')"),
        ),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    reason: Mapped[str]  # models.deferred.Reason
    waits_for: Mapped[int]  # the student or course concerned; 0: no one
    first_seen: Mapped[datetime]  # its place in the order of arrival: the stamp of a command that has none
    command_id: Mapped[UUID | None] = mapped_column(unique=True)
    content_hash: Mapped[bytes | None]
    student_id: Mapped[int | None]
    request: Mapped[str]  # JSON; tasks.deferring
    task: Mapped[str]
    task_id: Mapped[str]
    message_key: Mapped[str]
    position: Mapped[int]  # of the command in its message
    headers: Mapped[str]  # JSON; text, because jsonb refuses U+0000
    until: Mapped[datetime | None]  # its time, or until when a student or course is waited for
    told: Mapped[bool] = mapped_column(server_default=false())  # that it waits: it stands in `commands` as waiting


class DeadLetter(Base):
    """A message that is not a valid command, or that could not be processed; kept until a person decides."""

    __tablename__ = "dead_letters"
    __table_args__ = (
        Index("dead_letters_code_id_idx", "code", "id"),
        Index("dead_letters_command_id_idx", "command_id"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    message_key: Mapped[str] = mapped_column(unique=True)  # one dead letter per message, however often it is delivered
    code: Mapped[str]
    message: Mapped[str]
    command_id: Mapped[UUID | None]
    task: Mapped[str | None]
    payload: Mapped[str]  # JSON where the message was JSON, else its bytes, what is not UTF-8 escaped
    headers: Mapped[str]  # JSON; text, because jsonb refuses U+0000
    received_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    replayed_at: Mapped[datetime | None]
    replayed_as: Mapped[list[UUID] | None] = mapped_column(ARRAY(Uuid))  # the commands that were sent for it
    discarded_at: Mapped[datetime | None]


class Audit(Base):
    """Who decided what by hand (models/audit.py). Rows are only added: a trigger refuses the rest."""

    __tablename__ = "audit"
    __table_args__ = (Index("audit_subject_idx", "subject"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    who: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    command_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB)
