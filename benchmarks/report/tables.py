"""Grids on the terminal."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from benchmarks.report import grids
from benchmarks.report.goals import MISSED, goals
from benchmarks.report.grids import Grid, Results


def all_of(results: Results) -> Iterator[Table]:
    """Yield a table for every part that was measured."""
    if "backlog" in results:
        yield _table(grids.systems(results))
    if "latency" in results:
        yield _table(grids.latency(results))
    if "profile" in results:
        yield _table(grids.profile(results))
    yield _table(grids.others(results))
    yield _table(goals(results))


def _table(grid: Grid) -> Table:
    table = Table(title=grid.title, title_justify="left")
    for number, column in enumerate(grid.columns):
        table.add_column(column, justify="right" if number else "left")
    for row in grid.rows:
        table.add_row(*(Text(cell, style="red" if cell == MISSED else "") for cell in row))
    return table
