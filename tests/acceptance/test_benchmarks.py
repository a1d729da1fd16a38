"""The harness of `make bench` on a small scale: what it measures is real, and it notices work that was not done."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.backlog import Backlogs, WrongResultError, check, steady_rate
from benchmarks.ground import RUN, Ground
from benchmarks.limit import insert_select
from benchmarks.report import page, plot, tables
from benchmarks.report.goals import goals
from benchmarks.stages import profile
from benchmarks.systems import ours
from benchmarks.workload import enrolls

STUDENTS = 500
DOCS = Path(__file__).parents[2] / "docs"
NUMBER = re.compile(r"\d[\d,.]*\d|\d")
ROW = {"label": "a", "ours": False, "rates": [50.0], "median": 50.0, "us": {"worker": 1, "postgres": 2, "redis": 3}}
US = {**ROW, "label": "b", "ours": True, "median": 500.0}


@pytest.fixture(scope="module")
def ground(server_folder: Path) -> Iterator[Ground]:
    with Ground(server_folder / "bench" / "servers", students=STUDENTS, durable=False) as ground:
        yield ground


def test_a_run_gives_a_rate_and_a_profile_of_every_stage_and_a_lost_command_is_noticed(ground: Ground) -> None:
    commands = enrolls(300, seed=1, students=STUDENTS)

    found = profile(ground, Backlogs(), commands[:-1], title="small", size=50)

    assert found.run.rate > 0
    assert not found.missing
    assert all(wall > 0 for wall, _ in found.stages.values())
    with pytest.raises(WrongResultError):
        check(ground, ours(1), ground.postgres.url_of(RUN), commands)


def test_postgresql_alone_is_measured_with_the_same_rows(ground: Ground) -> None:
    assert insert_select(ground, enrolls(200, seed=2, students=STUDENTS), at_once=100).rate > 0


def test_only_the_steady_part_of_a_run_counts() -> None:
    start, steady, end = [0] * 20, [1000 + 10 * n for n in range(76)], [90_000] * 4

    assert steady_rate([*start, *steady, *end]) == pytest.approx(100, rel=0.05)
    assert steady_rate([7] * 100) == 0


def test_results_become_tables_a_plot_and_a_page() -> None:
    results: dict[str, Any] = {
        "backlog": {
            "systems": {
                "celery-tuned": ROW,
                **{f"ours-{kind}-{n}": US for kind in ("single", "apply") for n in (1, 2)},
            },
            "limits": {"all at once": {**ROW, "label": "PostgreSQL alone", "median": 400.0}},
            "missing": {"rq": "no environment"},
            "about": {},
        },
        "latency": {
            "ours-single-1": {"p50": 1, "p99": 2, "processor": 3, "commands": 9},
            "celery-orm": {"p50": 2, "p99": 1, "processor": 3, "commands": 9},
        },
    }
    results["distance"] = {"rates": {"0": US, "1": US, "20": {**US, "median": 100.0}}}

    text = page.markdown(results)
    http = {"lookups": [900.0, 1000.0], "writes": [300.0, 100.0], "write_ms": [7.5, 5.0]}
    with_http = {**results, "http": http}

    assert "HTTP" not in text
    assert "| HTTP lookups/s vs a bare FastAPI route | 0.90 | at least 0.80 | met |" in page.markdown(with_http)
    assert [row[1:] for row in goals(with_http).rows if "HTTP write" in row[0]] == [
        ["3.00", "at least 4.00", "missed"],
        ["2.50", "at most 2.00", "missed"],
    ]
    assert len(goals({"http": {**http, "writes": [300.0, None]}}).rows) == 2
    assert "Missing: rq (no environment)" in text
    assert ["single commands vs Celery tuned", "10.00", "at least 10.00", "met"] in goals(results).rows
    assert ["idle latency p99 vs plain Celery", "2.00", "at most 1.00", "missed"] in goals(results).rows
    far = "commands/s of workers 20 ms from both servers vs none"
    assert [far, "0.20", "at least 0.30", "missed"] in goals(results).rows
    assert plot.svg(results).count("<rect") == 6
    assert len(list(tables.all_of(results))) == 4


def test_the_committed_page_is_what_the_committed_results_say() -> None:
    results = json.loads((DOCS / "performance.json").read_text())

    assert (DOCS / "performance.md").read_text() == page.markdown(results)


def test_the_page_on_scaling_quotes_only_figures_of_the_page_on_performance() -> None:
    performance = set(NUMBER.findall((DOCS / "performance.md").read_text()))
    table = (DOCS / "scaling.md").read_text().split("### From `make bench`")[1].split("\n### ")[0]
    cells = [row.split("|")[2] for row in table.splitlines() if row.startswith("|")]
    quoted = [number for cell in cells for number in NUMBER.findall(cell)]

    assert quoted
    assert [number for number in quoted if number not in performance] == []
