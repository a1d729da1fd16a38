"""A real Prometheus scrapes a real run: every query of the rules and of the dashboard has an answer."""

import json
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from enrollment.ids import uuid7
from tests.acceptance.conftest import COURSES, UNKNOWN, Outside
from tests.eventually import eventually
from tests.root import ROOT
from tests.tools import require_tool
from worker.local.process import Child
from worker.local.server import free_port
from worker.local.stack import Stack, environment

RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
PROGRAM = Path(sys.executable).parent / "enrollment"
SELECTOR = re.compile(r"\benrollment_\w+(?:\{[^}]*\})?")


def dashboard() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"].replace("$__rate_interval", "1m") for panel in panels for target in panel["targets"]]


def rules() -> list[str]:
    blocks = re.findall(r"expr: \|\n((?: {10}.+\n)+)", RULES.read_text())
    assert len(blocks) == RULES.read_text().count("- alert:")
    return blocks


class Prometheus:
    """A server that scrapes every second."""

    def __init__(self, folder: Path, config: str) -> None:
        folder.mkdir()
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        (folder / "alerts.yml").write_text(RULES.read_text())
        (folder / "prometheus.yml").write_text(config)
        self.child = Child(
            name="prometheus",
            command=[
                require_tool("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            log=folder / "log",
            cwd=folder,
        )

    def get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:  # noqa: S310
                return json.load(answer)["data"]
        except OSError as error:
            return {"result": [], "activeTargets": [], "error": str(error)}

    def ask(self, query: str) -> list[Any]:
        found = self.get("query", query=query)
        assert "error" not in found, f"{query}: {found['error']}"
        return list(found["result"])


@pytest.fixture(scope="module")
def monitored(server_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Prometheus]]:
    tmp_path = tmp_path_factory.mktemp("monitored")
    exporter, gateway = free_port(), free_port()
    config = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text()
    for old, new in (("15s", "1s"), ("9464", str(exporter)), ("8000", str(gateway))):
        config = config.replace(old, new)
    prometheus = Prometheus(tmp_path / "prometheus", config)
    variables = {"ENROLLMENT_METRICS_PORT": "0", "TMPDIR": str(tmp_path)}
    with Stack(server_folder / "monitored", workers=2, durable=False, variables=variables) as stack:
        verbs = {"exporter": ["exporter", "--port", str(exporter)], "gateway": ["gateway", "--port", str(gateway)]}
        env = environment(stack.variables)
        children = [
            Child(name=name, command=[str(PROGRAM), *verb], log=tmp_path / f"{name}.log", env=env, cwd=tmp_path)
            for name, verb in verbs.items()
        ]
        children.append(prometheus.child)
        try:
            for child in children:
                child.log.write_bytes(b"")
                child.start()
            yield stack, prometheus
        finally:
            for child in children:
                child.kill()


def make_a_run_of_everything(outside: Outside) -> None:
    """Send what makes each series appear: applied, rejected, refused, read by a group."""
    outside.database.execute(
        "INSERT INTO courses (id, code) SELECT g, 'C' || g FROM generate_series(101, 120) g ON CONFLICT DO NOTHING"
    )
    student = outside.new_student()
    now = "2026-01-31T09:30:00Z"
    sent = [
        outside.send("enrollment.enroll.v1", student, [course], source="portal", issued_at=now, id_=str(uuid7()))
        for course in COURSES
    ]
    outside.send("enrollment.enroll.v1", student, [UNKNOWN], source="portal")
    outside.send("enrollment.misspelt.v1", student, [])
    outside.event(sent[-1])


@pytest.mark.timeout(300)
def test_every_query_of_rules_and_dashboard_has_an_answer(monitored: tuple[Stack, Prometheus]) -> None:
    stack, prometheus = monitored
    outside = Outside(stack)
    outside.redis.xgroup_create("enrollment.events", "copy", id="0", mkstream=True)
    outside.redis.lpush("enrollment:9", "of a producer with another separator")
    env = environment(stack.variables) | {"ENROLLMENT_RETENTION": "30"}
    subprocess.run([PROGRAM, "retention", "run"], env=env, check=True, capture_output=True)

    def all_are_scraped() -> bool:
        up = prometheus.get("query", query="up == 1")["result"]
        return sorted(it["metric"]["job"] for it in up) == [
            "enrollment-exporter", "enrollment-gateway", "enrollment-worker", "enrollment-worker",
        ]  # fmt: skip

    eventually(all_are_scraped, patience=60)
    make_a_run_of_everything(outside)
    selectors = sorted({it for rule in rules() for it in SELECTOR.findall(rule)})
    waiting = [*selectors, *dashboard()]

    def unanswered() -> list[str]:
        make_a_run_of_everything(outside)  # a rate needs a series that grows
        return [query for query in waiting if not prometheus.ask(query)]

    eventually(lambda: not (waiting := unanswered()) or print_and_fail(waiting), patience=120)
    for rule in rules():
        prometheus.ask(rule)
    groups = prometheus.get("rules")["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
    assert probe(stack, "--ready").returncode == 0
    outside.close()


@pytest.mark.timeout(120)
def test_one_worker_that_waits_for_the_database_while_others_work_is_told(
    monitored: tuple[Stack, Prometheus], tmp_path: Path
) -> None:
    stack, prometheus = monitored
    outside = Outside(stack)
    outside.database.execute("CREATE ROLE stray LOGIN PASSWORD 'stray'")  # it may connect, and read nothing
    stray = re.sub(r"//[^@]*@", "//stray:stray@", stack.database_url)
    env = environment(stack.variables) | {"ENROLLMENT_DATABASE_URL": stray, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "celery", "-A", "worker", "worker", "--hostname=stray@localhost"]
    worker = Child(name="stray", command=command, log=tmp_path / "log", env=env, cwd=tmp_path)
    worker.log.write_bytes(b"")
    worker.start()

    def one_more() -> None:
        """Send a command; sooner or later the one that waits gets one, and holds it."""
        outside.send("enrollment.enroll.v1", outside.new_student(), [COURSES[0]])

    def measured() -> bool:
        one_more()
        waits = 'increase(enrollment_worker_wait_seconds_total{on="database"}[2m]) > 2'
        found = prometheus.get("query", query=waits)["result"]
        return [it["metric"]["worker"] for it in found] == ["stray@localhost"]

    def told() -> bool:
        one_more()
        return "warn\tworkers\tstray@localhost gives signs of life and does not answer" in probe(stack).stdout

    try:
        eventually(measured, patience=60)
        eventually(told, patience=60)
    finally:
        worker.kill()
        outside.close()


@pytest.mark.timeout(200)
def test_a_worker_that_is_connected_and_consumes_nothing_is_found_out(monitored: tuple[Stack, Prometheus]) -> None:
    stack, _ = monitored
    assert probe(stack, "--live").returncode == 0
    app = Celery("test", broker=stack.broker_url, set_as_current=False)
    for queue in ("enrollment", "enrollment.bulk"):
        app.control.cancel_consumer(queue, destination=["worker1@localhost"])
    eventually(lambda: probe(stack, "--live").returncode, patience=100)
    lines = (line.split("\t") for line in probe(stack, "--live").stdout.splitlines() if "\t" in line)
    assert {name: status for status, name, *_ in lines} == {"worker1@localhost": "fail", "worker2@localhost": "ok"}
    assert app.control.ping(["worker1@localhost"], timeout=5)  # it is connected, and answers
    app.close()


def probe(stack: Stack, *question: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [PROGRAM, "doctor", *question], env=environment(stack.variables), capture_output=True, text=True, check=False
    )


def print_and_fail(queries: list[str]) -> bool:
    print("no answer yet:", *queries, sep="\n  ")  # noqa: T201 - shown where the test fails
    return False
