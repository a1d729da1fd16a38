"""The worker, started in a folder of somebody else."""

import os
import subprocess
import sys
from pathlib import Path

CELERY = Path(sys.executable).with_name("celery")


def test_a_configuration_that_lies_in_the_folder_is_not_taken_for_the_worker_s(tmp_path: Path) -> None:
    """Celery would look there first, and a worker would connect to another broker without a word."""
    (tmp_path / "celeryconfig.py").write_text("broker_url = 'amqp://somebody-else//'\n")
    addresses = {"ENROLLMENT_BROKER_URL": "redis://ours:6379/0", "ENROLLMENT_DATABASE_URL": "postgresql://ours/d"}
    done = subprocess.run(
        [str(CELERY), "-A", "worker", "report"],
        cwd=tmp_path,
        env={**os.environ, **addresses},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "@ours:6379/0" in done.stdout
    assert "somebody-else" not in done.stdout
