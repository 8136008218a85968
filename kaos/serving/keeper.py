"""The keeper: lets run what the records of the endpoints want, and nothing else; counts what goes through.

``python -m kaos.serving.keeper`` with the store, the work directory and the gateway's sockets in the
environment. It has no state that matters: killed at any moment, the next one goes on from the records and
from the services that still run, which do not depend on it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

from kaos.endpoint import Endpoint, ServeDocument
from kaos.errors import InvalidInputError, KaosError
from kaos.runtime.base import RunState, RunStatus
from kaos.serving import prepare, probe
from kaos.serving.gateway import Gateway, gateway_of
from kaos.serving.records import Endpoints, Names
from kaos.serving.service import Services, kept, launched_at
from kaos.serving.traffic import Traffic, lines
from kaos.store import Store, open_store
from kaos.value import Value

log = logging.getLogger(__name__)

_TURN_SECONDS = 0.25
_SLOW_TURN_SECONDS = 2.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 30.0
_STEADY_SECONDS = 10.0
_FORGOTTEN_SECONDS = 900.0
"""Beyond its own limits: so long may the tasks of a deploy be held up before its service is given up."""

HOPELESS = 5
"""Failures in a row after which an endpoint counts as one that cannot start; it is tried on, every 30 s."""

_LIFE = "life.json"


class Life(Value):
    """What the keeper knows of a service.

    :param restarts: how often it was started again
    :param failures: how often in a row it ended soon after its start
    :param reason: how it ended the last time
    """

    restarts: int = 0
    failures: int = 0
    reason: str = ""


def life(directory: Path) -> Life:
    """Return what the keeper knows of the service of a directory."""
    try:
        return Life.parse((directory / _LIFE).read_bytes())
    except (FileNotFoundError, InvalidInputError):  # of a machine that lost its power, perhaps
        return Life()


class Keeper:
    """Keep the services of all endpoints of a store as their records want them.

    :param network: of containers that have to be laid out anew, empty for the engine's default
    :param user: of such whose image names none
    """

    def __init__(
        self, store: Store, work: Path, gateway: Gateway, *, network: str = "", user: str = ""
    ) -> None:
        self.store = store
        self.work = work
        self.gateway = gateway
        self.network = network
        self.user = user
        self.traffic = Traffic(work / "gateway" / "traffic.json")
        self._due: dict[Path, float] = {}
        self._heard: set[Path] = set()
        self._left: dict[Path, float] = {}
        self._gone: set[Path] = set()
        self._ending: dict[Path, threading.Thread] = {}
        self._next_sync = 0.0

    def turn(self) -> None:
        """Look at everything once, and do what is to be done."""
        alive = {found.name: (records, found) for records, found in Names(self.store).endpoints()}
        before = self._ports(alive)
        for name, (records, found) in alive.items():
            try:
                self._keep(records, found)
            except (KaosError, OSError) as error:
                log.warning("%s: %s", name, error)
        for name in self._names() - alive.keys():
            for directory in self._directories(name):
                self._end(directory, 1.0, remove=True)
        if time.monotonic() >= self._next_sync or self._ports(alive) != before:
            self._next_sync = time.monotonic() + _SLOW_TURN_SECONDS
            self.gateway.sync(self.store, self.work)
            self.traffic.forget(alive)

    def _keep(self, records: Endpoints, found: Endpoint) -> None:
        now = datetime.now(UTC)
        latest = found.current or found.revisions
        if latest not in records.revision_numbers(found.name):  # it is being reserved
            return
        limits = records.revision(found.name, latest)[0].limits
        wanted = found.running(limits.keep_warm, now)
        for number in sorted(wanted):
            self._run(records, records.revision(found.name, number)[0])
        if found.wanted is not None:
            self._bring_back(records, found, found.wanted)
        for directory in self._directories(found.name):
            number = int(directory.name)
            outcome = records.outcome(found.name, number)
            if number in wanted or outcome is None:
                self._left.pop(directory, None)
                self._gone.discard(directory)
                if number not in wanted:
                    self._give_up_forgotten(records, records.revision(found.name, number)[0], directory)
                continue
            if directory in self._gone:
                if number != found.previous:  # the only one that may come back
                    prepare.put_away(directory)
                continue
            # What it was asked when it lost its traffic it may still answer, in the time that it promised.
            since = self._left.setdefault(directory, time.monotonic())
            longest = records.revision(found.name, number)[0].limits.timeout
            if not outcome.succeeded or time.monotonic() > since + longest:
                self._end(directory, longest)

    def _give_up_forgotten(self, records: Endpoints, document: ServeDocument, directory: Path) -> None:
        """End the deploy of a service that nobody goes on with: Airflow forgot its run, or was taken away."""
        launched = kept(directory)
        if launched is None:
            return
        limits = document.limits
        longest = limits.start_timeout + limits.timeout + _FORGOTTEN_SECONDS
        if time.time() > launched_at(directory) + longest:
            reason = f"Its deploy did not go on within {longest:.0f} s of the start of its service."
            prepare.record_failure(records, document, self.work, reason)
            log.warning("%s, revision %d: %s", document.endpoint, document.revision, reason)

    def _run(self, records: Endpoints, document: ServeDocument) -> None:
        """Start a service that does not run, after a pause that grows with each failure."""
        directory = prepare.directory_of(self.work, document.endpoint, document.revision)
        if time.monotonic() < self._due.get(directory, 0.0):
            return
        running = prepare.services(document.runtime)
        status = running.observe(directory)
        known = life(directory)
        if status is not None and status.state is RunState.RUNNING:
            self._due.pop(directory, None)
            if directory not in self._heard and running.listens(directory):
                self._heard.add(directory)
            if known.failures and directory in self._heard and _age(status) > _STEADY_SECONDS:
                _note(directory, known.model_copy(update={"failures": 0}))
            running.trim(directory)
            return
        if directory not in self._due:
            # However long it took: a model that does not load is one that does not start.
            short = directory not in self._heard or (status is not None and _lived(status) < _STEADY_SECONDS)
            self._heard.discard(directory)
            soon = status is not None and not status.terminated and short
            reason = status.reason if status is not None else "it is not on this machine"
            failures = known.failures + 1 if soon else 0
            restarts = known.restarts + 1 if status is not None else known.restarts
            if self._wait(directory, Life(restarts=restarts, failures=failures, reason=reason)):
                return
        try:
            try:
                running.relaunch(directory)
            except FileNotFoundError:
                self._lay_out(records, document)
        except (KaosError, OSError) as error:
            known = life(directory)
            self._wait(
                directory, known.model_copy(update={"failures": known.failures + 1, "reason": str(error)})
            )
        else:
            self._due.pop(directory, None)

    def _wait(self, directory: Path, known: Life) -> bool:
        """Note why a service does not run; tell whether there is a pause before it is started."""
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**known.failures) if known.failures else 0.0
        self._due[directory] = time.monotonic() + pause
        name, number = directory.parent.name, int(directory.name)
        log.warning("%s, revision %d: %s; starting it in %.1f s", name, number, known.reason, pause)
        _note(directory, known)
        return pause > 0

    def _lay_out(self, records: Endpoints, document: ServeDocument) -> None:
        """Start a service whose directory or image is gone, from the store or the registry."""
        record = records.record(document.endpoint, document.revision)
        if record is None:
            return
        built = prepare.build(records, document, record.build, self.work, log.info)
        prepare.launch(records, document, built, self.work, network=self.network, user=self.user)

    def _bring_back(self, records: Endpoints, found: Endpoint, number: int) -> None:
        """Give the traffic to a revision that is wanted back, once it is ready."""
        document, _ = records.revision(found.name, number)
        directory = prepare.directory_of(self.work, found.name, number)
        running = prepare.services(document.runtime)
        port = running.port(directory)
        if port is None or not running.listens(directory) or not probe.ping(port, 0.5):
            return

        def give(endpoint: Endpoint) -> Endpoint:
            if endpoint.wanted != number:
                return endpoint
            return endpoint.roll_back(datetime.now(UTC))

        records.change(found.name, give)
        self.gateway.sync(self.store, self.work)
        log.info("%s: revision %d is back", found.name, number)

    def _end(self, directory: Path, grace: float, *, remove: bool = False) -> None:
        """End a service that nobody wants; that may take as long as its last answers take."""
        busy = self._ending.get(directory)
        if (directory in self._gone and not remove) or (busy is not None and busy.is_alive()):
            return
        self._ending.pop(directory, None)
        running = prepare.services_in(directory)
        status = running.observe(directory)
        if status is not None and status.state is RunState.RUNNING:
            log.info("Ending %s, revision %d", directory.parent.name, int(directory.name))
            thread = threading.Thread(target=_terminate, args=(running, directory, grace), daemon=True)
            self._ending[directory] = thread
            thread.start()
        elif _terminate(running, directory, 0.0):  # what was made of it and never ran
            self._gone.add(directory)
            if remove:
                shutil.rmtree(directory, ignore_errors=True)
                self._gone.discard(directory)

    def _ports(self, alive: Iterable[str]) -> dict[Path, int | None]:
        return {
            directory: found.port if (found := kept(directory)) is not None else None
            for name in alive
            for directory in self._directories(name)
        }

    def _names(self) -> set[str]:
        """Return the endpoints that have something on this machine, those that were killed among them."""
        return {path.name for path in (self.work / "endpoints").glob("*") if path.is_dir()}

    def _directories(self, name: str) -> list[Path]:
        """Return the directories of an endpoint's services, and nothing that somebody else put there."""
        return sorted(path for path in (self.work / "endpoints" / name).glob("*") if path.name.isdecimal())

    # -- traffic -----------------------------------------------------------------------------------------

    def count(self) -> None:
        """Take the gateway's lines, for ever."""
        saved = time.monotonic()
        for batch in lines(self.gateway.log):
            for line in batch:
                self.traffic.take(line)
            if time.monotonic() - saved > 1:
                saved = time.monotonic()
                try:
                    self.traffic.save()
                except OSError as error:  # a full disk: what is counted is not lost by that
                    log.warning("The counts of requests cannot be kept: %s", error)

    def show(self) -> None:
        """Answer the gateway's `/metrics`, for ever."""
        traffic = self.traffic

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = traffic.prometheus().encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                log.debug(format, *args)

        class Server(ThreadingMixIn, UnixStreamServer):
            daemon_threads = True

            def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
                connection, _ = super().get_request()
                return connection, ("local", 0)  # what handlers take for an address

        self.gateway.metrics.unlink(missing_ok=True)
        with Server(str(self.gateway.metrics), Handler) as server:
            self.gateway.metrics.chmod(0o600)
            server.serve_forever()


def _age(status: RunStatus) -> float:
    return (datetime.now(UTC) - status.started_at).total_seconds() if status.started_at else 0.0


def _lived(status: RunStatus) -> float:
    if status.started_at is None:
        return 0.0
    return ((status.ended_at or datetime.now(UTC)) - status.started_at).total_seconds()


def _terminate(running: Services, directory: Path, grace: float) -> bool:
    """End a service; tell whether that went well. Whoever comes by next tries again."""
    try:
        running.terminate(directory, grace)
    except (KaosError, OSError) as error:
        log.warning("%s, revision %s cannot be ended: %s", directory.parent.name, directory.name, error)
        return False
    return True


def _note(directory: Path, known: Life) -> None:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    staged = directory / f".{_LIFE}.{os.getpid()}"
    staged.write_bytes(known.encode())
    staged.replace(directory / _LIFE)


def main() -> None:
    """Keep the endpoints, for ever."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    os.umask(0o077)
    work = Path(os.environ["AIRFLOW__KAOS__WORK_DIR"])
    gateway = gateway_of(work, os.environ.get("AIRFLOW__KAOS__GATEWAY_SOCKETS"))
    gateway.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    keeper = Keeper(
        open_store(os.environ["AIRFLOW__KAOS__STORE"]),
        work,
        gateway,
        network=os.environ.get("AIRFLOW__KAOS__CONTAINER_NETWORK", ""),
        user=os.environ.get("AIRFLOW__KAOS__CONTAINER_USER", ""),
    )
    for job in (keeper.count, keeper.show):
        threading.Thread(target=job, daemon=True).start()
    while True:
        try:
            keeper.turn()
        except (KaosError, OSError, json.JSONDecodeError):
            log.exception("This turn failed; the next one comes")
            time.sleep(1)
        time.sleep(_TURN_SECONDS)


if __name__ == "__main__":
    main()
