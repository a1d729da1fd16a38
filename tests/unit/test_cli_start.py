"""How the command line starts: at once, with help, and with an error in one sentence where it is called wrongly."""

import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.root import ROOT
from worker.cli.app import app
from worker.cli.output import moment, number, printable

HEAVY = {"alembic", "celery", "kombu", "psycopg", "pydantic_settings", "redis", "rich", "sqlalchemy", "structlog"}
VERBS = (
    "send",
    "courses-of",
    "students-in",
    "students",
    "command",
    "history",
    "events",
    "dead-letters",
    "catalog",
    "migrate",
    "doctor",
    "demo",
    "up",
)
PROBE = """
import sys
from worker.cli import main
sys.argv[1:] = {arguments!r}
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(*sorted({{name.partition('.')[0] for name in sys.modules}}), file=sys.stderr)
"""


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments), env={"ENROLLMENT_DATABASE_URL": "", "ENROLLMENT_BROKER_URL": ""})
    return result.exit_code, result.stdout, result.stderr


def imported(*arguments: str) -> set[str]:
    probe = [sys.executable, "-c", PROBE.format(arguments=list(arguments))]
    done = subprocess.run(probe, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.usefixtures("executed")
def test_help_imports_nothing_that_takes_time() -> None:
    assert not imported("--help") & {*HEAVY, "pydantic"}


@pytest.mark.usefixtures("executed")
@pytest.mark.parametrize("verb", [["send"], ["dead-letters", "list"], ["events"], ["gateway"]])
def test_the_help_of_a_verb_imports_nothing_that_takes_time_but_what_typer_itself_does(verb: list[str]) -> None:
    assert not imported(*verb, "-h") & HEAVY


def test_help_names_every_verb() -> None:
    code, output, _ = run("--help")
    assert code == 0
    assert all(f" {verb} " in output for verb in VERBS)


def test_a_missing_setting_is_one_sentence() -> None:
    code, output, error = run("students")
    assert (code, output) == (1, "")
    assert error.startswith("Error: ENROLLMENT_DATABASE_URL is not set; set it to an address such as")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["no-such-verb"], "No such command"),
        (["send", "enrol", "--student", "1"], "'enrol' is neither enroll, unenroll or replace, nor a file"),
        (["send", "."], "'.' is neither"),
        (["send", "enroll", "--course", "1"], "Missing option"),
        (["send", "enroll", "--student", "1"], "course_ids must be a list of 1 to 1000"),
        (["send", "enroll", "--student", "1", "--course", "x"], "'x' is no course id"),
        (["send", "enroll", "--student", "1", "--course", "1", "--issued-at", "now"], "issued_at must be"),
        (["send", "enroll", "--student", "1", "--course", "1", "--id", "7"], "command_id is missing or not a UUID"),
        (["send", "replace", "--student", "1"], "say either --course"),
        (["send", "replace", "--student", "1", "--none", "--course", "1"], "say either --course"),
        (["catalog", "load"], "say --students, --courses or both"),
        (["command", "7"], "Invalid value"),
        (["dead-letters", "list", "--code", "lost"], "'lost' is none of invalid_command, command_id_reused"),
    ],
)
def test_a_wrong_call_is_told_what_is_wrong(arguments: list[str], complaint: str) -> None:
    code, output, error = run(*arguments)
    assert (code, output) == (2, "")
    assert complaint in " ".join(error.replace("│", " ").split())


def test_a_file_named_like_a_verb_can_be_sent_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("enroll").write_text("")
    assert "ENROLLMENT_BROKER_URL is not set" in run("send", "./enroll")[2]
    assert "Missing option" in run("send", "enroll")[2]


def test_foreign_text_cannot_steer_a_terminal() -> None:
    assert printable("Ana\x1b[2J \u202e李雷\n") == "Ana\\x1b[2J \\u202e李雷\\n"


def test_numbers_and_times_are_written_for_people() -> None:
    assert [number(1, "command"), number(2000, "command")] == ["1 command", "2,000 commands"]
    assert moment(datetime(2026, 1, 31, 9, 30, tzinfo=timezone(timedelta(hours=1)))) == "2026-01-31T08:30:00Z"
