"""docs/operations.md has a section for whatever sends a person there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from enrollment.errors import DeadLetterCode
from tests.root import ROOT

RUNBOOK = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
WARNINGS = {"warning", "error", "exception", "critical"}
PACKAGES = ("enrollment", "gateway", "models", "tasks", "worker")


def anchors() -> set[str]:
    """Return the anchors of the sections, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", RUNBOOK, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def warnings_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=attr), args=[first, *_]) if (
                attr in WARNINGS
            ):
                assert isinstance(first, ast.Constant), f"{path}:{node.lineno}: the event is no constant"
                yield str(first.value).partition(":")[0]  # the client logs for people, with the reason behind


def all_warnings() -> list[str]:
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted({event for path in paths for event in warnings_of(path)})


@pytest.mark.parametrize("event", all_warnings())
def test_each_warning_of_the_log_has_its_section(event: str) -> None:
    assert event in anchors()


@pytest.mark.parametrize("code", DeadLetterCode)
def test_each_dead_letter_code_has_its_section(code: str) -> None:
    assert f"dead-letter-{code}" in anchors()


def test_each_alert_links_to_its_section() -> None:
    rules = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
    alerts = re.findall(r"- alert: (\w+)", rules)
    links = re.findall(r"runbook_url: docs/operations.md#(\S+)", rules)
    assert links == [alert.lower() for alert in alerts]
    assert set(links) <= anchors()


def test_each_place_that_the_code_sends_a_person_to_is_there() -> None:
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    found = {it for path in paths for it in re.findall(r"docs/operations\.md#([\w-]+)", path.read_text("utf-8"))}
    assert found
    assert found <= anchors()
