"""The database's history: one numbered revision per step, each safe on a database that is in use."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

# What a worker and a database are compared by.
NEWEST: Final = max(path.name.partition("_")[0] for path in Path(__file__).parent.glob("versions/[0-9]*.py"))
# Revisions that must not run while workers of the version before do, each with the reason as `migrate status` shows it.
# All others keep to the rules of tests/migration/test_rules.py.
STOPS_OLD_WORKERS: Final[Mapping[str, str]] = {}
