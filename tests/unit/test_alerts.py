"""The files that Prometheus and Grafana read, by Prometheus's own tool."""

import json
import re
import subprocess

import pytest

from tests.root import ROOT
from tests.tools import require_tool

FOLDER = ROOT / "deploy" / "prometheus"


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "rules", "alerts.yml"],
        ["check", "config", "prometheus.yml"],
        ["check", "config", "--syntax-only", "compose.yml"],  # its key is a file of the container
        ["test", "rules", "alerts_test.yml", "alerts_week_test.yml"],
    ],
    ids=" ".join,
)
def test_promtool_is_content(arguments: list[str]) -> None:
    done = subprocess.run(
        [require_tool("promtool", "prometheus"), *arguments], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_tried_silent_and_firing() -> None:
    alerts = re.findall(r"- alert: (\w+)", (FOLDER / "alerts.yml").read_text())
    tried = "".join(path.read_text() for path in FOLDER.glob("alerts_*test.yml"))
    for alert in alerts:
        cases = re.findall(rf"alertname: {alert}\n\s+exp_alerts:( \[\])?", tried)
        assert set(cases) == {"", " []"}, alert


def test_every_metric_of_rules_and_dashboard_is_documented() -> None:
    documented = (ROOT / "docs" / "metrics.md").read_text()
    used = (FOLDER / "alerts.yml").read_text() + (ROOT / "deploy" / "grafana" / "dashboard.json").read_text()
    for name in set(re.findall(r"\b(enrollment_\w+?)(?:_bucket|_sum|_count)?\b(?=[\[{( /<>=)\"\\]|$)", used)):
        assert f"`{name}`" in documented, name


def test_the_panels_of_the_dashboard_say_what_they_show_and_which_alerts_there_are() -> None:
    panels = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text())["panels"]
    named = {it for panel in panels for it in re.findall(r"Enrollment[A-Z]\w+", panel["description"])}
    assert all(panel["description"] for panel in panels)
    assert named <= set(re.findall(r"- alert: (\w+)", (FOLDER / "alerts.yml").read_text()))


def test_the_panels_of_the_dashboard_have_ids_and_places_of_their_own() -> None:
    panels = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text())["panels"]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(panels) == len({panel["id"] for panel in panels}) == len(places)
