"""Files that are broken in every way: each ends in a plan or in a sentence, and nobody is dropped for a broken row."""

import csv
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import Engine, text

from tests.integration.cli.conftest import Result, Run
from tests.integration.cli.imports import broken
from tests.integration.cli.imports.broken import KEEPING, TAKING, Files

SEEDS = range(2)  # of each way to break a file; more find more
FORMATS = (broken.canvas, broken.oneroster, broken.plain)
OPTIONS = ("--by", "sis_id", "--full", "--max-drop-percent", 100, "--max-course-drop-percent", 100)
LONGEST = 1000  # characters of a sentence
REPORT = 100_000  # bytes, of thirty rows


@pytest.fixture(autouse=True)
def everybody(engine: Engine) -> None:
    """Have the students and the course of the good files, and everybody enrolled."""
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO students (id, sis_id) SELECT g, 's' || g FROM generate_series(1, 30) g",
            "INSERT INTO courses (id, sis_id) VALUES (10, 'c10')",
            "INSERT INTO student_courses (student_id, course_id, issued_at) SELECT id, 10, '2020-01-01Z' FROM students",
        ):
            connection.execute(text(statement))


def written(folder: Path, files: Files) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def is_planned(done: Result) -> bool:
    """See that it ended in a plan or in one sentence; tell whether there is a plan."""
    if done.code in (0, 3, 4):
        return True
    assert (done.code, done.output) == (1, "")
    [line] = done.error.splitlines()
    assert line.startswith("Error: ")
    assert len(line) < LONGEST
    return False


@pytest.mark.parametrize("make", FORMATS)
def test_a_broken_file_ends_in_a_plan_or_in_one_sentence(
    run: Run, tmp_path: Path, make: Callable[[Random], Files]
) -> None:
    for way in KEEPING + TAKING:
        for seed in SEEDS:
            what = f"{way.__name__}-{seed}"
            random = Random(what)  # noqa: S311 - the same file each time
            files = make(random)
            name = random.choice(sorted(files))
            files[name] = way(random, files[name])
            report = tmp_path / f"{what}.csv"
            done = run("import", written(tmp_path / what, files), *OPTIONS, "--dry-run", "--json", "--report", report)
            if is_planned(done) and way in KEEPING:
                assert name == "manifest.csv" or has_everybody(report), what


def has_everybody(report: Path) -> bool:
    """Tell whether each student is in the report, or a row of it is rejected, and nobody is dropped."""
    assert report.stat().st_size < REPORT
    with report.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    told = {row["student"] for row in rows if row["asked"] != "drop"}
    if any(row["plan"] == "unenroll" for row in rows):
        return False
    return {f"s{n}" for n in broken.STUDENTS} <= told or any(row["plan"] == "rejected" for row in rows)


def test_a_zip_that_is_odd_or_damaged_ends_in_a_plan_or_in_one_sentence(run: Run, tmp_path: Path) -> None:
    for seed in range(12):
        random = Random(seed)  # noqa: S311 - the same file each time
        path = tmp_path / f"{seed}.zip"
        path.write_bytes(broken.packed(random, random.choice(FORMATS)(random)))
        is_planned(run("import", path, *OPTIONS, "--dry-run", "--json"))
