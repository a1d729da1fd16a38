"""Whether Python finds the top-level modules of this distribution, and not others of the same names."""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

MODULES = ("celeryconfig", "migrations", "models", "tasks")
HOME = Path(__file__).resolve().parents[1]


def check(modules: Iterable[str] = MODULES, home: Path = HOME) -> None:
    """End the process with one sentence if another module hides one of these, as `python -m celery` lets it.

    A foreign `celeryconfig` would be taken without a word, with addresses and queues that are not the worker's.
    """
    for name in modules:
        spec = find_spec(name)
        if spec and spec.origin and home not in Path(spec.origin).resolve().parents:
            raise SystemExit(
                f"{spec.origin} hides the module {name!r} of enrollment-worker; "
                "start in another folder, or in an environment that has no other package of this name."
            )
