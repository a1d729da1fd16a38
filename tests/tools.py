"""Tools that are no Python package, such as `promtool`: a test that needs one says so."""

import os
import shutil
from typing import NoReturn

import pytest


def require_tool(name: str, package: str | None = None) -> str:
    """Return where the tool is. Without it the test is skipped with the reason; in CI (`CI` is set) it fails."""
    place = shutil.which(name)
    if place is None:
        do_without(f"{name} is not on this machine; on Debian and Ubuntu: apt install {package or name}")
    return place


def do_without(reason: str) -> NoReturn:
    """Skip the test for want of something; in CI it fails."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
