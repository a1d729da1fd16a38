"""What tests of migrations do: move a database to a revision, and remember what is in it."""

from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from alembic import command
from alembic.config import Config
from psycopg import sql
from psycopg.rows import dict_row

from tests.root import ROOT

Rows = dict[str, list[dict[str, Any]]]  # by table

FILL: dict[str, LiteralString] = {  # what each revision brings, and a row or two in it
    "0001": """
        INSERT INTO students (id, sis_id, name) VALUES (1, 's-1', 'Ana'), (2, NULL, ''), (9, 's-9', '李雷');
        INSERT INTO courses (id, sis_id, code, title) VALUES (101, 'c-101', 'MAT', 'Algebra'), (102, NULL, '', '');
    """,
    "0002": "INSERT INTO student_courses (student_id, course_id) VALUES (1, 101), (1, 102), (9, 101)",
    "0003": """
        INSERT INTO student_courses VALUES (2, 101, '2026-01-31T09:30:00Z', '00000000-0000-0000-0000-000000000001');
        INSERT INTO tombstones VALUES (2, 102, '2026-01-31T09:30:00Z', '00000000-0000-0000-0000-000000000002');
        INSERT INTO replace_marks VALUES (1, '2026-01-31T09:30:00Z', '00000000-0000-0000-0000-000000000003');
        INSERT INTO commands VALUES ('00000000-0000-0000-0000-000000000001', 'enroll', 2, '{101}',
            '2026-01-31T09:30:00Z', 'portal', 'applied', '{101}', '{}', '{}', '{}', '[]', now(), '\\x00');
        INSERT INTO outbox (batch_id, command_ids) VALUES (gen_random_uuid(), '{}');
    """,
    "0004": """
        INSERT INTO dead_letters (message_key, code, message, payload, headers) VALUES ('key', 'expired', '', '', '')
    """,
    "0005": "UPDATE dead_letters SET replayed_at = now(), replayed_as = ARRAY[gen_random_uuid()]",
    "0006": "INSERT INTO students (id, name) VALUES (11, 'Zoë O''Brien-Li')",
    "0007": "UPDATE dead_letters SET command_id = gen_random_uuid()",
    "0008": """
        INSERT INTO deferred_commands
            (reason, waits_for, first_seen, request, task, task_id, message_key, position, headers)
        VALUES ('student', 1, now(), '{}', 'enrollment.enroll.v1', 'id', 'key', 0, '{}')
    """,
    "0009": """
        DELETE FROM student_courses WHERE student_id = 9;
        DELETE FROM students WHERE id = 9;
        INSERT INTO replace_marks VALUES (9, now(), gen_random_uuid());
    """,
    "0010": "SELECT",
    "0011": "UPDATE commands SET target = gen_random_uuid()",
    "0012": "UPDATE commands SET trace = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'",
    "0013": """
        INSERT INTO audit (who, action, subject, command_ids, detail)
        VALUES ('admin', 'student.changed', 'students/1', '{}', '{}')
    """,
    "0014": "INSERT INTO forgotten_commands VALUES (gen_random_uuid(), '\\x00')",
    "0015": "UPDATE retention SET gone_to = 1",
    "0016": "INSERT INTO closed_courses VALUES (101)",
    "0017": "UPDATE epoch SET epoch = 7",
    "0018": "SELECT",
    "0019": "SELECT",
}


def alembic_config(url: str) -> Config:
    config = Config(ROOT / "alembic.ini")
    config.attributes["url"] = url
    return config


@dataclass(frozen=True, slots=True)
class Database:
    url: str
    connection: psycopg.Connection

    def upgrade(self, revision: str = "head") -> None:
        command.upgrade(alembic_config(self.url), revision)

    def downgrade(self, revision: str) -> None:
        command.downgrade(alembic_config(self.url), revision)

    def check(self) -> None:
        command.check(alembic_config(self.url))

    def run(self, statement: LiteralString) -> None:
        self.connection.execute(statement)

    def fill(self, revision: str) -> None:
        """Move to `revision`, and put rows into what each revision up to it brought."""
        for step, statement in FILL.items():
            if step <= revision:
                self.upgrade(step)
                self.run(statement)

    def value(self, query: LiteralString) -> Any:
        row = self.connection.execute(query).fetchone()
        return None if row is None else row[0]

    def tables(self) -> set[str]:
        found = self.connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {name for (name,) in found} - {"alembic_version"}

    def rows(self) -> Rows:
        """Return all there is."""
        found: Rows = {}
        for table in self.tables():
            with self.connection.cursor(row_factory=dict_row) as cursor:
                query = sql.SQL("SELECT * FROM {table} ORDER BY {table}").format(table=sql.Identifier(table))
                found[table] = cursor.execute(query, prepare=False).fetchall()  # columns come and go
        return found

    def keeps(self, before: Rows) -> bool:
        """Tell whether each row of `before` is there still, with what it said; columns may have been added."""
        after = self.rows()
        return all(
            len(rows) == len(after[table]) and all(any(_says(now, row) for now in after[table]) for row in rows)
            for table, rows in before.items()
        )


def _says(now: dict[str, Any], before: dict[str, Any]) -> bool:
    return all(now[column] == value for column, value in before.items())
