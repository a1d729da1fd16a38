"""`enrollment import`: files that other systems export, planned first, then sent."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperGroup

from worker.cli.output import Json, say

if TYPE_CHECKING:
    from tasks.imports.plan import ImportRequest

_FILE: Final = "file"
_LONGEST: Final = 3_000_000_000  # seconds, some 95 years
_FORMATS: Final = ("canvas", "oneroster", "plain")


class Verbs(TyperGroup):
    """The verbs of `import`. A first word that is none of them is a path, or an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the verb `file` before what is no verb."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [_FILE, *args]
        elif args and args[0] in ctx.help_option_names:
            args = [_FILE, "--help"]
        return super().parse_args(ctx, args)


verbs = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    subcommand_metavar="PATH",
    help="Import a file, folder or zip that another system exported: Canvas, OneRoster or a plain CSV.",
)

Report = Annotated[
    list[Path] | None,
    typer.Option("--report", metavar="FILE", help="Write a line per row to FILE (.csv or .json)."),
]
Wait = Annotated[bool, typer.Option(help="Wait for the outcomes of the commands.")]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="S", min=0, help="Seconds without any outcome after which to give up.")
]


@verbs.command(_FILE)
def import_file(
    path: Annotated[Path | None, typer.Argument(metavar="PATH", help="A CSV file, a folder of them, or a zip.")] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only plan: show what would happen.")] = False,
    apply: Annotated[
        int | None, typer.Option("--apply", metavar="PLAN", help="Apply a plan, or go on with it.")
    ] = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="With --apply: send once more what has no outcome, if the broker lost its queues."
        ),
    ] = False,
    watch: Annotated[
        Path | None,
        typer.Option("--watch", metavar="DIR", exists=True, file_okay=False, help="Import what is put there."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="With --watch: import what is there, then end.")] = False,
    format_: Annotated[
        str | None, typer.Option("--format", metavar="|".join(_FORMATS), help="Default: found out by the header.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Commands have the source import/NAME. Default: the format."),
    ] = None,
    issued_at: Annotated[
        str | None,
        typer.Option(
            "--issued-at",
            metavar="TIME|file",
            help="When rows were decided that do not say it. Default: now, with --watch: file (its own time).",
        ),
    ] = None,
    full: Annotated[
        bool | None,
        typer.Option("--full/--no-full", help="The file has everybody: unenroll the absent. Default: its manifest."),
    ] = None,
    scope: Annotated[
        str,
        typer.Option(
            "--scope",
            metavar="courses|source",
            help="Who counts as absent: of the file's courses, or enrolled by this source.",
        ),
    ] = "courses",
    max_drops: Annotated[int | None, typer.Option("--max-drops", metavar="N", min=0, help="Absent, in all.")] = None,
    max_drop_percent: Annotated[float, typer.Option("--max-drop-percent", metavar="P", min=0, max=100)] = 20,
    max_course_drops: Annotated[
        int | None, typer.Option("--max-course-drops", metavar="N", min=0, help="Absent in one course.")
    ] = None,
    max_course_drop_percent: Annotated[
        float, typer.Option("--max-course-drop-percent", metavar="P", min=0, max=100)
    ] = 50,
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="STATUS=ACTION", help="Canvas: completed or inactive = enroll, unenroll or ignore."
        ),
    ] = None,
    other_role: Annotated[
        list[str] | None,
        typer.Option("--other-role", metavar="NAME", help="A role of the school's own that is no student's."),
    ] = None,
    course_is: Annotated[
        str, typer.Option("--course-is", metavar="class|course", help="OneRoster: what a course is.")
    ] = "class",
    by: Annotated[str, typer.Option("--by", metavar="id|sis_id", help="Plain: what student and course are.")] = "id",
    wait_for_catalog: Annotated[
        float | None,
        typer.Option(
            "--wait-for-catalog",
            metavar="S",
            min=0,
            max=_LONGEST,
            help="Seconds that rows wait for an unknown student or course. Default: as commands of this source.",
        ),
    ] = None,
    report: Report = None,
    wait: Wait = True,
    timeout: Timeout = 60,
    json: Json = False,
) -> None:
    """Import a file, folder or zip that another system exported: Canvas, OneRoster or a plain CSV.

    Each row becomes a command on the queue; users, courses and classes go to the catalog. Say the same again after a
    crash: it goes on, and does nothing twice. `enrollment import undo ID` takes an import back.

    Exit codes: 0 done, 1 failed, 2 called wrongly, 3 done but for rows that were rejected, 4 done but the absent were
    left enrolled, because a guard says no.
    """
    from worker.cli import imports

    if sum(way is not None for way in (path, apply, watch)) != 1:
        raise typer.BadParameter("say one of PATH, --apply PLAN and --watch DIR")
    if dry_run and path is None:
        raise typer.BadParameter("only a PATH can be planned without being done", param_hint="--dry-run")
    if again and apply is None:
        raise typer.BadParameter("say which import, with --apply", param_hint="--again")
    how = imports.How(tuple(report or ()), wait=wait, timeout=timeout, json=json)
    if apply is not None:
        raise typer.Exit(imports.apply(apply, how, again=again))
    limits = (max_drop_percent, max_drops, max_course_drop_percent, max_course_drops)
    request, as_dated = _request(
        name=name, issued_at=issued_at, full=full, scope=scope, limits=limits, mapped=map_, course_is=course_is, by=by
    )
    others = tuple(sorted({role.strip().lower() for role in other_role or ()}))
    request = replace(request, wait_for_catalog=wait_for_catalog, other_roles=others)
    _one_of("--format", format_, (None, *_FORMATS))
    if watch is not None:
        raise typer.Exit(
            imports.watch(watch, request, how, format_name=format_, as_dated=as_dated or not issued_at, once=once)
        )
    if path is None or not path.exists():
        raise typer.BadParameter(f"there is no {path}", param_hint="PATH")
    raise typer.Exit(imports.run(path, request, how, format_name=format_, as_dated=as_dated, dry_run=dry_run))


@verbs.command("undo")
def undo(
    import_id: Annotated[int, typer.Argument(metavar="ID", help="The import.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only plan: show what would happen.")] = False,
    report: Report = None,
    wait: Wait = True,
    timeout: Timeout = 60,
    json: Json = False,
) -> None:
    """Take back what an import changed and nobody has changed since. The undoing is an import, too."""
    from worker.cli import imports

    how = imports.How(tuple(report or ()), wait=wait, timeout=timeout, json=json)
    raise typer.Exit(imports.undo(import_id, how, dry_run=dry_run))


def history(
    import_id: Annotated[int | None, typer.Argument(metavar="ID", help="Show this one.")] = None,
    *,
    report: Report = None,
    forget: Annotated[bool, typer.Option("--forget", help="Delete it with its rows; what it did stays.")] = False,
    last: Annotated[int, typer.Option("--last", "-n", min=1, max=1000, help="How many of the newest.")] = 20,
    json: Json = False,
) -> None:
    """List imports, or show one: what was planned, what came of it."""
    from worker.cli import imports

    if import_id is None and (report or forget):
        raise typer.BadParameter("say which import", param_hint="ID")
    if import_id is None:
        imports.show_list(last, json=json)
    elif forget:
        imports.forget(import_id)
    else:
        imports.show(import_id, imports.How(tuple(report or ()), wait=False, timeout=0, json=json))


def why(
    student: Annotated[str, typer.Option("--student", "-s", metavar="ID", help="Their id, or sis:ID.")],
    course: Annotated[str, typer.Option("--course", "-c", metavar="ID", help="Its id, or sis:ID.")],
) -> None:
    """Tell in a paragraph why a student is, or is not, enrolled in a course."""
    from worker.cli.why import why as told

    say(told(student, course))


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.add_typer(verbs, name="import", rich_help_panel="Send")
    app.command("imports", rich_help_panel="Read")(history)
    app.command("why", rich_help_panel="Read")(why)


def _request(
    *,
    name: str | None,
    issued_at: str | None,
    full: bool | None,
    scope: str,
    limits: tuple[float, int | None, float, int | None],
    mapped: list[str] | None,
    course_is: str,
    by: str,
) -> "tuple[ImportRequest, bool]":
    from enrollment.commands import parse_time
    from tasks.imports.guard import Limits
    from tasks.imports.plan import ImportRequest

    _one_of("--scope", scope, ("courses", "source"))
    _one_of("--course-is", course_is, ("class", "course"))
    _one_of("--by", by, ("id", "sis_id"))
    as_dated = issued_at == "file"
    try:
        at = parse_time(issued_at) if issued_at and not as_dated else None
    except ValueError:
        raise typer.BadParameter(
            f"{issued_at!r} is not a time such as 2026-01-31T09:30:00Z, nor the word file"
        ) from None
    request = ImportRequest(
        source=_source(name),
        issued_at=at,
        full=full,
        scope=scope,  # type: ignore[arg-type] # checked above
        limits=Limits(*limits),
        statuses=_statuses(mapped or []),
        course_is=course_is,  # type: ignore[arg-type] # checked above
        by=by,  # type: ignore[arg-type] # checked above
    )
    return request, as_dated


def _source(name: str | None) -> str:
    import re

    if name is not None and not re.fullmatch(r"[A-Za-z0-9._:/-]{1,50}", name):
        raise typer.BadParameter(f"{name!r} is not 1 to 50 of A-Z a-z 0-9 . _ : / -", param_hint="--name")
    return f"import/{name}" if name else ""


def _statuses(mapped: list[str]) -> dict[str, str]:
    from tasks.imports.formats.canvas import MAPPED

    found = dict(item.partition("=")[::2] for item in mapped)
    for status, action in found.items():
        if status not in MAPPED or action not in ("enroll", "unenroll", "ignore"):
            known = " or ".join(MAPPED)
            raise typer.BadParameter(f"say {known}, then = and enroll, unenroll or ignore", param_hint="--map")
    return found


def _one_of(option: str, value: str | None, known: tuple[str | None, ...]) -> None:
    if value not in known:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(filter(None, known))}", param_hint=option)
