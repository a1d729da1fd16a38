"""`python -m benchmarks`: measure, print, and write the results, the plot and the page."""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any, Final

from rich.console import Console

from benchmarks.ground import Ground
from benchmarks.parts import FULL, PARTS, SHORT, Say
from benchmarks.report import page, plot, tables
from benchmarks.root import ROOT

FOLDER: Final = ROOT / ".local" / "bench"
DOCS: Final = ROOT / "docs"
WIDTH: Final = 150  # characters, where the output is no terminal


def main(arguments: Sequence[str]) -> None:
    asked = _parser().parse_args(arguments)
    console, begin = Console(), monotonic()
    if not console.is_terminal:
        console.width = WIDTH

    def say(line: str) -> None:
        console.print(f"[dim]{monotonic() - begin:5.0f} s[/]  {line}", highlight=False)

    out: Path = asked.out or (FOLDER / "short" if asked.short else DOCS)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "performance.json"
    results: dict[str, Any] = json.loads(path.read_text()) if asked.only and path.exists() else {}
    if not asked.show:
        for name, part in _measured(asked, say):
            results[name] = part
            path.write_text(json.dumps(results, indent=1) + "\n")
    else:
        results = json.loads(path.read_text())
    (out / "performance.svg").write_text(plot.svg(results))
    (out / "performance.md").write_text(page.markdown(results))
    for table in tables.all_of(results):
        console.print(table)
    say(f"written: {path.with_suffix('.md')}, .svg and .json")


def _measured(asked: argparse.Namespace, say: Say) -> Iterator[tuple[str, dict[str, Any]]]:
    form = SHORT if asked.short else FULL
    before: Path | None = asked.before and asked.before.resolve()
    form = replace(form, memory=asked.memory or form.memory, before=before)
    commit = _commit(ROOT)  # before the first part is written: that is a change, too
    with Ground(FOLDER / "servers") as ground:
        for name in asked.only or PARTS:
            about = {**_about(asked), "commit": commit}
            part = PARTS[name](ground, form, say)
            if before and "before" in part:
                part["before"] = {**part["before"], "about": {**about, "commit": _commit(before)}}
            yield name, {**part, "about": about}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true", help="smaller, one round, into .local/bench/short")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), help="these parts; the others stay as they were")
    parser.add_argument("--memory", type=int, help="commands that its memory is watched over, such as 1000000")
    parser.add_argument("--before", type=Path, help="a checkout of an earlier commit, to be profiled in turn with this")
    parser.add_argument("--out", type=Path, help="where performance.md, .svg and .json go; default: docs")
    parser.add_argument("--show", action="store_true", help="measure nothing; show, and write anew, what is there")
    return parser


def _about(asked: argparse.Namespace) -> dict[str, Any]:
    """Return under what circumstances a part is measured."""
    words = ["python", "-m", "benchmarks", *(["--short"] if asked.short else [])]
    return {
        "command": "make bench-short" if asked.short else "make bench",
        "words": " ".join(words),
        "when": datetime.now(UTC).isoformat(timespec="minutes"),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def _commit(folder: Path) -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607 - whichever git there is
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
    )
    return done.stdout.strip()


if __name__ == "__main__":
    main(sys.argv[1:])
