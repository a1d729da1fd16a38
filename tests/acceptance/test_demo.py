"""`make demo` and `make up` as a newcomer meets them."""

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from redis import Redis

from tests.admin import field
from tests.eventually import eventually
from tests.root import ROOT
from worker.heartbeats import Heartbeats

PS = shutil.which("ps") or "ps"
ENROLLMENT = str(Path(sys.executable).with_name("enrollment"))


def left_over(folder: Path) -> str:
    """Return the processes whose command names this folder."""
    processes = subprocess.run([PS, "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return "\n".join(line for line in processes.splitlines() if str(folder) in line)


@pytest.mark.timeout(180)
def test_the_demo_comes_out_right_twice_and_leaves_nothing_running(server_folder: Path) -> None:
    folder = server_folder / "demo"
    for _ in range(2):  # the second begins as fresh as the first
        done = subprocess.run(
            [ENROLLMENT, "demo", "--folder", folder], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "Every command took effect exactly once." in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= 80
    eventually(lambda: not left_over(folder))


@pytest.fixture
def up(server_folder: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [ENROLLMENT, "up", "--folder", str(server_folder / "up")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.send_signal(signal.SIGINT)


@pytest.mark.timeout(180)
def test_up_runs_until_it_is_interrupted(up: "subprocess.Popen[str]", server_folder: Path) -> None:
    assert up.stdout is not None
    said = ""
    for line in up.stdout:
        said += line
        if "Ctrl-C" in line:
            break
    variables = dict(re.findall(r"export (\w+)=(\S+)", said))
    assert set(variables) >= {"ENROLLMENT_DATABASE_URL", "ENROLLMENT_BROKER_URL"}
    with Redis.from_url(variables["ENROLLMENT_BROKER_URL"]) as redis:
        assert redis.ping()
        heartbeats = Heartbeats(variables["ENROLLMENT_BROKER_URL"])
        heartbeats.start()
        [address] = eventually(lambda: heartbeats.alive().values())
        heartbeats.close()
        assert (
            "enrollment_worker_last_progress_timestamp_seconds"
            in httpx.get(f"http://{address}/metrics", timeout=20).text
        )
    page = re.search(r"Page: (http://\S+)/admin    Log in as: (\w+)    Password: (\S+)", said)
    assert page is not None
    with httpx.Client(base_url=page[1], follow_redirects=True, timeout=20) as browser:
        asked = browser.get("/", headers={"accept": "text/html"})
        assert asked.url.path == "/admin/login"
        token = field(asked.text, "login_csrf")
        entered = browser.post("/admin/login", data={"login_csrf": token, "name": page[2], "password": page[3]})
        assert entered.url.path == "/admin"
        assert "<h1>Overview</h1>" in entered.text
    time.sleep(0.5)  # a person is not that quick
    up.send_signal(signal.SIGINT)
    assert up.stdout.read() == "Stopped. The data is kept, and is there again the next time.\n"
    assert up.wait(30) == 0
    eventually(lambda: not left_over(server_folder / "up"))
