"""Undoing an import: commands that take back what it changed and nobody since. The undoing is an import itself."""

from uuid import uuid5

from sqlalchemy import Engine

from enrollment.errors import EnrollmentError
from models import import_undo, imports, planning
from tasks.imports.plan import namespaces


class CannotUndo(EnrollmentError):
    """This import cannot be undone now."""


def plan_undo(engine: Engine, import_id: int) -> int:
    """Plan the undoing of an import; return the id of the plan. Raises UnknownImport, CannotUndo."""
    with engine.connect() as connection:
        record = imports.get(connection, import_id)
        if record.state != "done":
            hint = f"say `enrollment import --apply {import_id}` first, which goes on with it"
            what = "was never applied" if record.state == "planned" else f"is not at its end; {hint}"
            raise CannotUndo(f"Import {import_id} {what}.")
        if record.undone_by is not None:
            raise CannotUndo(f"Import {import_id} is undone already, by import {record.undone_by}.")
        planning.be_patient(connection)
        now = imports.clock(connection)
        undo = imports.create(
            connection,
            path=f"undo of import {import_id}",
            files=record.files,
            format_=record.format,
            digest=record.digest,
            source=record.source,
            options={"undo": import_id, "sent": record.sent},
            scope=None,
            issued_at=now,
            undo_of=import_id,
        )
        own, _ = namespaces(record.digest, record.source, record.options, record.issued_at)
        namespace = uuid5(own, f"undo of import {import_id}")  # a file may be imported and undone again
        import_undo.plan(connection, undo, of=import_id, issued_at=now, namespace=namespace)
        imports.keep_plan(connection, undo, planning.counts(connection, undo), None)
        connection.commit()
    return undo
