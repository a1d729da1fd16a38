"""What the tuned peers have in common: the statement, the event, and the file of commands to send."""

import json
import sys

STREAM = "bench.events"
STATEMENT = """
    WITH known AS (SELECT id FROM courses WHERE id = ANY(%(courses)s::bigint[])),
         fresh AS (
            INSERT INTO bench_commands (command_id, student_id, course_ids, outcome)
            SELECT %(id)s::uuid, %(student)s::bigint, %(courses)s::bigint[],
                   CASE WHEN EXISTS (SELECT FROM students WHERE id = %(student)s::bigint)
                         AND (SELECT count(*) FROM known) = cardinality(%(courses)s::bigint[])
                        THEN 'applied' ELSE 'rejected' END
            ON CONFLICT DO NOTHING RETURNING outcome),
         written AS (
            INSERT INTO student_courses (student_id, course_id)
            SELECT %(student)s::bigint, known.id FROM known, fresh WHERE fresh.outcome = 'applied' ORDER BY known.id
            ON CONFLICT DO NOTHING)
    SELECT outcome FROM fresh
"""
# The same for asyncpg.
NUMBERED = STATEMENT % {"id": "$1", "student": "$2", "courses": "$3"}


def event(command_id, student_id, course_ids, outcome):
    data = {"command_id": command_id, "command": "enroll", "student_id": student_id, "course_ids": course_ids}
    return json.dumps(
        {"specversion": "1.0", "id": command_id, "type": f"enrollment.{outcome}.v1", "source": "/bench", "data": data}
    )


def commands():
    """Yield what the file on the command line says: command id, student id, course ids."""
    with open(sys.argv[1]) as lines:
        for line in lines:
            item = json.loads(line)
            yield item["command_id"], item["student_id"], item["course_ids"]
