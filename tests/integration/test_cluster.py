"""A Redis Cluster of three nodes: what the worker and `doctor` say of an address in one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis as Client

from enrollment.names import STREAM
from tests.eventually import eventually
from tests.integration.cli.conftest import start
from tests.root import ROOT
from worker import health
from worker.local.redis import Redis
from worker.local.server import free_port
from worker.publishing import connect

SLOTS = 16_384


@pytest.fixture(scope="module")
def cluster(server_folder: Path) -> Iterator[list[Redis]]:
    """Give three nodes, each with a third of the slots."""
    with ExitStack() as undo:
        nodes: list[Redis] = []
        for number in range(3):
            settings = {"cluster-enabled": "yes", "cluster-port": str(free_port())}  # not 10,000 above the other
            nodes.append(undo.enter_context(Redis(server_folder / f"node{number}", durable=False, settings=settings)))
        clients: list[Any] = [undo.enter_context(Client.from_url(node.url)) for node in nodes]
        for number, client in enumerate(clients):
            first, last = number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, nodes[0].settings["cluster-port"])
        eventually(lambda: all(client.cluster("info")["cluster_state"] == "ok" for client in clients))
        yield nodes


def findings(nodes: list[Redis], *keys: str) -> list[str]:
    found = []
    for node in nodes:
        with connect(node.url) as client:
            found.append(health.cluster("events", client, *keys).status)
    return sorted(found)


def test_the_stream_can_be_had_on_one_node_of_three_and_the_queue_on_none(cluster: list[Redis]) -> None:
    assert findings(cluster, STREAM) == ["fail", "fail", "ok"]
    assert findings(cluster, *health.queue_keys("")) == ["fail"] * 3


@pytest.mark.parametrize("name", ["BROKER", "EVENTS"])
def test_a_node_without_the_keys_ends_the_worker_with_a_sentence_and_doctor_says_the_same(
    cluster: list[Redis], redis_url: str, database_url: str, name: str
) -> None:
    [stranger, *_] = [node for node in cluster if findings([node], STREAM) == ["fail"]]
    variables = {
        "ENROLLMENT_DATABASE_URL": database_url,
        "ENROLLMENT_BROKER_URL": redis_url,
        f"ENROLLMENT_{name}_URL": stranger.url,
    }
    worker = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "worker", "worker"],
        env={**os.environ, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    sentence = f"ENROLLMENT_{name}_URL names a node of a Redis Cluster"
    assert worker.returncode == 1
    assert worker.stderr.strip().splitlines()[-1].startswith(sentence)
    doctor = start(variables, "doctor", stdout=subprocess.PIPE)
    assert f"fail\t{name.lower()}\t{sentence}" in doctor.communicate(timeout=60)[0]


def test_the_node_that_holds_the_stream_will_do(cluster: list[Redis]) -> None:
    [owner] = [node for node in cluster if findings([node], STREAM) == ["ok"]]
    with connect(owner.url) as client:
        cast(Any, client).xadd(STREAM, {"event": "{}"})
        assert client.xlen(STREAM) == 1
