"""Stand by one run of user code: start it, outlive whoever asked for it, keep its end.

``python -S -m kaos.runtime.wrapper DIRECTORY LOCK_DESCRIPTOR``, started by :mod:`kaos.runtime.process` in a
session of its own; or ``--serve SOCKET_DESCRIPTOR``, by :mod:`kaos.runtime.spawn`, to fork one a request. It
reads ``launch.json`` there, writes ``process.json`` before the script begins, and ``exit.json`` after the end
of all that it started. SIGTERM ends the run, ``terminate.json`` has the grace.

Only the standard library, little of it: its start is a part of the time from a deploy to the first line.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from kaos.runtime import limits, proctree, verdict

LAUNCH = "launch.json"
PROCESS = "process.json"
EXIT = "exit.json"
TERMINATE = "terminate.json"
LOG = "run.log"
ERRORS = "wrapper.log"
SERVE = "--serve"

GRACE_SECONDS = 1.0

_PR_SET_CHILD_SUBREAPER = 36
_SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def main(arguments: list[str]) -> int:
    """Become the wrapper, in a process that nobody waits for; return once the script has begun."""
    directory, lock = Path(arguments[0]), int(arguments[1])
    os.set_inheritable(lock, False)
    begun, tell = os.pipe()
    if os.fork():
        os.close(lock)
        os.close(tell)
        # Without the interpreter's own clean-up: the launch waits for us, and there is nothing to clean.
        os._exit(0 if os.read(begun, 1) else 1)
    os.close(begun)
    order = json.loads((directory / LAUNCH).read_text())
    run = Run(directory, order)
    run.start()
    # From here on the records say that the run is there: who waits for the lock may look.
    os.close(lock)
    os.write(tell, b"1")
    os.close(tell)
    run.wait()
    run.finish()
    return 0


def serve(descriptor: int) -> int:
    """Fork a wrapper for each directory that comes with its lock; answer with its exit code."""
    import socket  # a wrapper that starts alone has no use for it

    with socket.socket(fileno=descriptor) as requests:
        while True:
            directory, locks, *_ = socket.recv_fds(requests, 4096, 1)
            if not directory:
                return 0
            child = os.fork()
            if child == 0:
                requests.close()
                _alone(os.fsdecode(directory), locks[0])
            os.close(locks[0])
            requests.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


def _alone(directory: str, lock: int) -> None:
    """Become a wrapper as if it had been started by a command; never return."""
    code = 1
    try:
        os.setsid()
        errors = os.open(Path(directory, ERRORS), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(errors, 2)
        os.close(errors)
        code = main([directory, str(lock)])
    except Exception:  # noqa: BLE001 (as the interpreter does at its end)
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


class Run:
    """One script with all that it starts."""

    def __init__(self, directory: Path, order: dict[str, Any]) -> None:
        self.directory = directory
        self.order = order
        self.script = 0
        self.status: int | None = None
        self.failure: tuple[int, str] | None = None
        self.terminated = False

    def start(self) -> None:
        """Start the script, limited and on record from its first instruction on."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        # What loses its parent, a daemon for instance, becomes our child: we find it and end it with the run.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        os.umask(0o077)
        go, begin = os.pipe()
        problem, report = os.pipe()
        self.script = os.fork()
        if self.script == 0:
            os.close(begin)
            _become(self.order, self.directory / LOG, go, report)
        os.close(go)
        os.close(report)
        self.limits = limits.apply(
            self.script,
            f"kaos-{self.order['key']}",
            cpu=self.order["cpu"],
            memory=self.order["memory"],
            memory_shown=self.order["memory_shown"],
        )
        write(
            self.directory / PROCESS,
            {
                "key": self.order["key"],
                "wrapper": proctree.Process.of(os.getpid()),
                "script": proctree.Process.of(self.script),
                "started_at": time.time(),
                "limits": self.limits.words,
                "cgroups": [str(path) for path in self.limits.group.directories],
            },
        )
        os.write(begin, b"1")
        os.close(begin)
        if number := os.read(problem, 16):
            self.failure = verdict.explain(self.order["command"], Path(self.order["program"]), int(number))
        os.close(problem)

    def wait(self) -> None:
        """Wait for the end of the script, or bring it about when told to."""
        deadline: float | None = None
        while self.status is None or (deadline is not None and self._others()):
            left = 60.0 if deadline is None else min(0.05, deadline - time.monotonic())
            if left <= 0:
                break
            received = signal.sigtimedwait(_SIGNALS, left)
            self._collect()
            if received is not None and received.si_signo != signal.SIGCHLD and deadline is None:
                self.terminated = self.status is None
                deadline = time.monotonic() + _grace(self.directory)
                proctree.send(self._others(), signal.SIGTERM)

    def finish(self) -> None:
        """End what the script left behind, keep how it ended, remove its control group."""
        if self._collect():
            self.limits.group.kill()
            ended = proctree.kill_all(self._others)
            while ended and self.status is None and self._collect():
                time.sleep(0.002)
        killed = self.limits.group.out_of_memory() > 0
        self.limits.group.remove()
        remove_scratch(Path(self.order["scratch"]))
        code, reason = self.failure or verdict.describe(self.status, self._memory(killed))
        if self.terminated:
            reason = f"terminated ({reason})" if reason else "terminated"
        write(
            self.directory / EXIT,
            {
                "key": self.order["key"],
                "exit_code": code,
                "reason": reason,
                "out_of_memory": killed and code != 0,
                "terminated": self.terminated,
                "ended_at": time.time(),
            },
        )

    def _memory(self, killed: bool) -> str:
        """Return what can be said of memory as the cause of a failure."""
        shown = self.order["memory_shown"]
        if killed:
            return f"out of memory: limit {shown}"
        if shown and not self.limits.group.memory and verdict.complains_of_memory(self.directory / LOG):
            return f"probably out of memory: limit {shown}"
        return ""

    def _others(self) -> set[int]:
        # Whatever loses its parent becomes our child: without a child nothing is left, and nothing to search.
        if not self._collect():
            return set()
        return self.limits.group.pids() | proctree.descendants(os.getpid())

    def _collect(self) -> bool:
        """Take note of children that have ended; return whether there are others."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.script:
                self.status = status


def write(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON file that readers see whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(document))
    new.replace(path)


def remove_scratch(directory: Path) -> None:
    """Remove a run's temporary files, as far as they let themselves be removed."""
    import shutil  # only now: 10 ms that no start has to wait for

    shutil.rmtree(directory, ignore_errors=True)


def _become(order: dict[str, Any], log: Path, go: int, report: int) -> None:
    """Turn this forked child into the user's script; never return."""
    try:
        os.setsid()
        if not os.read(go, 1):  # the wrapper is gone, and with it the record of this run
            return
        # When the machine itself runs out of memory, the script goes before the server does.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("500")
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(order["program"])
        # Python ignores these; a script expects them as they are by default.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvpe(order["command"][0], order["command"], order["env"])  # noqa: S606  the whole purpose
    except OSError as error:
        os.write(report, str(error.errno).encode())
    finally:
        os._exit(127)


def _grace(directory: Path) -> float:
    try:
        return float(json.loads((directory / TERMINATE).read_text())["grace_seconds"])
    except FileNotFoundError:
        return GRACE_SECONDS


if __name__ == "__main__":
    sys.exit(serve(int(sys.argv[2])) if sys.argv[1] == SERVE else main(sys.argv[1:]))
