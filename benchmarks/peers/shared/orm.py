"""The work of one command as SQLAlchemy's tutorial leads to: models, a session per command, objects added to it."""

import os

from redis import Redis
from sqlalchemy import ARRAY, BigInteger, ForeignKey, Text, Uuid, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from tuned_common import STREAM, event


class Base(DeclarativeBase):
    type_annotation_map = {int: BigInteger, str: Text}


class Student(Base):
    __tablename__ = "students"
    id: Mapped[int] = mapped_column(primary_key=True)


class Course(Base):
    __tablename__ = "courses"
    id: Mapped[int] = mapped_column(primary_key=True)


class StudentCourse(Base):
    __tablename__ = "student_courses"
    student_id: Mapped[int] = mapped_column(ForeignKey("students.id"), primary_key=True)
    course_id: Mapped[int] = mapped_column(ForeignKey("courses.id"), primary_key=True)


class Command(Base):
    __tablename__ = "bench_commands"
    command_id: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
    student_id: Mapped[int]
    course_ids: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    outcome: Mapped[str]


# Both connect on first use, which is after the fork.
engine = create_engine(os.environ["BENCH_DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"))
events = Redis.from_url(os.environ["BENCH_REDIS_URL"])


def enroll(command_id, student_id, course_ids):
    """Apply one command; a repeat does nothing."""
    with Session(engine) as session, session.begin():
        if session.get(Command, command_id) is not None:
            return
        student = session.get(Student, student_id)
        courses = session.scalars(select(Course).where(Course.id.in_(course_ids))).all()
        outcome = "applied" if student is not None and len(courses) == len(course_ids) else "rejected"
        if outcome == "applied":
            for course in courses:
                session.merge(StudentCourse(student_id=student_id, course_id=course.id))
        session.add(Command(command_id=command_id, student_id=student_id, course_ids=course_ids, outcome=outcome))
    events.xadd(STREAM, {"event": event(command_id, student_id, course_ids, outcome)})
