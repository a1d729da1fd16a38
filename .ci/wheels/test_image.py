"""The image of deploy/docker, built and run without an engine, in chroots on a base of Debian's packages.

What a chroot cannot show: a read-only root file system, and networks of its own.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from installed import ROOT, Installed
from test_wheels import main_job

USER = 10001  # of the Dockerfile
BASE = "localhost/python:bookworm"
CERTIFICATES = "/etc/ssl/certs"  # of this machine: those of the package registries may be its own


@dataclass(frozen=True)
class Contained(Installed):
    """A container; the empty folder is its working directory."""

    buildah: tuple[str, ...] = ()
    name: str = ""

    def call(self, command: tuple[str, ...], variables: dict[str, str]) -> list[str]:
        given = [f"--env={name}={value}" for name, value in variables.items()]
        here = [f"--volume={self.folder}:/work", "--workingdir=/work", *given]
        return [*self.buildah, "run", "--isolation=chroot", *here, self.name, "--", *command]

    def end(self, process: subprocess.Popen[bytes]) -> int:
        """Ask the innermost process: an engine passes SIGTERM on to it, buildah kills it."""
        pid = str(process.pid)
        while child := subprocess.run(["pgrep", "--parent", pid], capture_output=True, text=True).stdout.split():
            pid = child[0]
        os.kill(int(pid), signal.SIGTERM)
        return process.wait(30)


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contained]:
    folder = tmp_path_factory.mktemp("container")
    os.chown(folder, USER, USER)
    with TemporaryDirectory() as scratch:
        buildah = ("buildah", f"--root={scratch}/root", f"--runroot={scratch}/run", "--storage-driver=vfs")

        def do(*arguments: str) -> str:
            done = subprocess.run([*buildah, *arguments], cwd=ROOT, text=True, capture_output=True)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout.strip()

        system, pip = Path(scratch, "debian"), Path(scratch, "pip.conf")
        packages = "--include=python3,python3-venv,ca-certificates"
        subprocess.run(
            ["debootstrap", "--variant=minbase", packages, "bookworm", system], check=True, capture_output=True
        )
        empty = do("from", "scratch")
        do("add", "--quiet", empty, str(system), "/")
        do("commit", "--quiet", "--rm", empty, BASE)
        shutil.rmtree(system)
        pip.write_text(f"[global]\ncert = {CERTIFICATES}/ca-certificates.crt\n")
        trust = [f"--volume={pip}:/etc/pip.conf:ro", f"--volume={CERTIFICATES}:{CERTIFICATES}:ro"]
        where = ["--isolation=chroot", "--network=host", *trust]
        do(
            "build",
            *where,
            f"--build-arg=BASE={BASE}",
            "--file=deploy/docker/Dockerfile",
            "--tag=enrollment-worker",
            ".",
        )
        yield Contained(Path(), folder, buildah, do("from", "localhost/enrollment-worker"))
        do("rm", "--all")


def test_the_main_job_runs_in_the_image(container: Contained, database: dict[str, str], tmp_path: Path) -> None:
    assert container.run("id", "--user").strip() == str(USER)
    main_job(container, database, tmp_path)
    assert "Permission denied" in container.run("touch", "/opt/enrollment/x", code=1)


def test_what_the_image_says_of_itself(container: Contained) -> None:
    said = subprocess.run(
        [*container.buildah, "inspect", "--format={{.OCIv1.Config}} {{.Docker.Config.Healthcheck}}", container.name],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "celery -A worker worker" in said
    assert "SIGTERM" in said
