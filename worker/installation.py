"""Whether Python finds the top-level modules of these distributions, and not others of the same names."""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
MODULES = ("celeryconfig", "enrollment", "migrations", "models", "tasks")
CLIENT = {"enrollment": "fold.py"}  # a distribution of its own may lie elsewhere: it is known by a file that it has


def check(modules: Iterable[str] = MODULES, home: Path = HOME) -> None:
    """End the process with one sentence if another module hides one of these, as `PYTHONPATH` lets it.

    A foreign `celeryconfig` would be taken without a word, with addresses and queues that are not the worker's; foreign
    `migrations` would be run on its database.
    """
    for name in modules:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            continue
        origin = Path(spec.origin).resolve()
        ours = (origin.parent / CLIENT[name]).exists() if name in CLIENT else home in origin.parents
        if not ours:
            raise SystemExit(
                f"{spec.origin} hides the module {name!r} of enrollment-worker; start in another folder, without "
                "PYTHONPATH, or in an environment that has no other package of this name."
            )
