"""Endpoints: what the gateway costs, swaps under load, and the same model in MLflow and in BentoML."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import kaos_templates
from bench.home import KAOS, Home
from bench.measure import Figure, Sizes, run, say

_PICTURE = "model-serve/mnist/test_payload.jpg"
_GATEWAY_MILLISECONDS, _KEPT, _FIRST_ANSWER, _ROLLBACK = 0.5, 0.8, 3.0, 2.0
_MLFLOW = (
    "import pickle, sys, mlflow; mlflow.sklearn.save_model(pickle.load(open(sys.argv[1], 'rb')), sys.argv[2])"
)
_BENTO = """
import os, pickle
import bentoml, numpy as np

@bentoml.service(workers=1)
class Digits:
    def __init__(self) -> None:
        self.model = pickle.load(open(os.environ["MODEL"], "rb"))

    @bentoml.api
    def predict(self, pixels: np.ndarray) -> int:
        return int(self.model.predict(pixels)[0])
"""


class Request(NamedTuple):
    """What is sent, and where."""

    url: str
    body: bytes
    kind: str


class Answered(NamedTuple):
    """What wrk saw."""

    p50: float
    rate: float
    failed: int


def measure(home: Home, sizes: Sizes) -> list[Figure]:
    """Return the figures of endpoints; wrk must be on the path."""
    if shutil.which("wrk") is None:
        return [Figure("endpoints", "", "not measured", why="wrk is not installed: apt-get install wrk")]
    quick = sizes.runs < 3
    seconds, rounds = (2, 1) if quick else (6, 5)
    home.new_workspace("serving")
    bundle = home.scratch / "mnist"
    kaos_templates.copy("mnist", bundle)
    home.kaos("train", "deploy", "-s", bundle / "model-train", "-d", bundle / "data", "--wait")
    model = home.kaos("train", "best", "-j", home.newest_job(), "-s", "accuracy_test").stdout.strip()
    source = bundle / "model-serve"
    endpoint = json.loads(
        home.kaos("serve", "deploy", "-s", source, "-m", model, "-n", "bench", "--wait", "-o", "json").stdout
    )
    picture = (bundle / _PICTURE).read_bytes()
    port = json.loads((home.state / "work/endpoints/bench/000001/service.json").read_text())["port"]
    gateway = Request(endpoint["url"], picture, "image/jpeg")
    direct = Request(f"http://127.0.0.1:{port}/invocations", picture, "image/jpeg")
    figures = _overhead(home, gateway, direct, seconds, rounds)
    figures += _peers(home, gateway, bundle, seconds, rounds)
    figures.append(_first_answer(home, source, model, gateway, rounds))
    figures += _swaps(home, gateway, 3 if quick else 20, 1 if quick else 5)
    return figures


def _overhead(home: Home, gateway: Request, direct: Request, seconds: int, rounds: int) -> list[Figure]:
    figures = []
    for connections in (1, 32):
        pairs = [
            (wrk(home, direct, connections, seconds), wrk(home, gateway, connections, seconds))
            for _ in range(rounds)
        ]
        added = statistics.median(through.p50 - alone.p50 for alone, through in pairs)
        kept = statistics.median(through.rate / alone.rate for alone, through in pairs)
        alone, through = (statistics.median(each.p50 for each in side) for side in zip(*pairs, strict=True))
        rates = [statistics.median(each.rate for each in side) for side in zip(*pairs, strict=True)]
        runs = ", ".join(
            f"{b.p50:.2f} ms {b.rate:.0f}/s (direct {a.p50:.2f} ms {a.rate:.0f}/s)" for a, b in pairs
        )
        if connections == 1:
            figures.append(
                Figure(
                    "mnist through the gateway, p50, 1 connection",
                    f"at most {_GATEWAY_MILLISECONDS} ms more than directly",
                    f"{through:.2f} ms",
                    f"directly {alone:.2f} ms",
                    f"{added:+.2f} ms",
                    reached=added <= _GATEWAY_MILLISECONDS,
                    runs=runs,
                )
            )
        else:
            figures.append(
                Figure(
                    f"mnist through the gateway, throughput, {connections} connections",
                    f"{_KEPT:.0%} of directly",
                    f"{rates[1]:.0f}/s",
                    f"directly {rates[0]:.0f}/s",
                    f"{kept:.0%}",
                    reached=kept >= _KEPT,
                    runs=runs,
                )
            )
    return figures


def _peers(home: Home, gateway: Request, bundle: Path, seconds: int, rounds: int) -> list[Figure]:
    job = home.kaos("train", "get", "-j", home.newest_job(), "-m", "-o", home.scratch / "got").stdout.split()
    pickle = next(Path(job[-1]).rglob("model.pkl"))
    row = (bundle / "data/features/test/test_mini.csv").read_text().splitlines()[0].split(",")[1:]
    pixels = [[int(value) for value in row]]
    figures = []
    with _mlflow(home, pickle) as port:
        body = json.dumps({"inputs": pixels}).encode()
        peer = Request(f"http://127.0.0.1:{port}/invocations", body, "application/json")
        figures += _beside(home, "mlflow models serve", gateway, peer, seconds, rounds)
    with _bentoml(home, pickle) as port:
        body = json.dumps({"pixels": pixels}).encode()
        peer = Request(f"http://127.0.0.1:{port}/predict", body, "application/json")
        figures += _beside(home, "BentoML", gateway, peer, seconds, rounds)
    return figures


def _beside(
    home: Home, name: str, gateway: Request, peer: Request, seconds: int, rounds: int
) -> Iterator[Figure]:
    for connections in (1, 32):
        pairs = [
            (wrk(home, peer, connections, seconds), wrk(home, gateway, connections, seconds))
            for _ in range(rounds)
        ]
        theirs, ours = (
            (statistics.median(e.p50 for e in side), statistics.median(e.rate for e in side))
            for side in zip(*pairs, strict=True)
        )
        yield Figure(
            f"the same model beside {name}, {connections} connection{'s' if connections > 1 else ''}",
            "",
            f"p50 {ours[0]:.2f} ms, {ours[1]:.0f}/s",
            f"p50 {theirs[0]:.2f} ms, {theirs[1]:.0f}/s",
            f"{ours[1] / theirs[1]:.2f} of the throughput",
            runs=", ".join(f"{b.rate:.0f}/s ({name} {a.rate:.0f}/s)" for a, b in pairs),
        )


def _first_answer(home: Home, source: Path, model: str, gateway: Request, rounds: int) -> Figure:
    times = []
    for number in range(rounds):
        url = gateway.url.replace("/bench/", f"/first-{number}/")
        started = time.monotonic()
        deploy = subprocess.Popen(
            [KAOS, "serve", "deploy", "-s", source, "-m", model, "-n", f"first-{number}"],
            env=home.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not _answers(gateway._replace(url=url)):
            time.sleep(0.01)
        times.append(time.monotonic() - started)
        deploy.wait()
        home.kaos("serve", "kill", "-e", f"first-{number}", "--yes")
    middle = statistics.median(times)
    return Figure(
        "deploy of a ready environment to the first answer",
        f"at most {_FIRST_ANSWER:.0f} s",
        f"{middle:.1f} s",
        reached=middle <= _FIRST_ANSWER,
        runs=", ".join(f"{each:.1f} s" for each in times),
        why="" if middle <= _FIRST_ANSWER else "Most of it is the import of scikit-learn by the endpoint.",
    )


def _swaps(home: Home, gateway: Request, swaps: int, rollbacks: int) -> list[Figure]:
    seen: list[Answered] = []
    ended = threading.Event()

    def load() -> None:
        while not ended.is_set():
            seen.append(wrk(home, gateway, 8, 5))

    thread = threading.Thread(target=load)
    thread.start()
    took = []
    for number in range(swaps):
        home.kaos("serve", "update", "-e", "bench", "--wait")
        say(f"swap {number + 1} of {swaps}")
    for _ in range(rollbacks):
        took.append(home.kaos("serve", "rollback", "-e", "bench").seconds)
        time.sleep(1)
    ended.set()
    thread.join()
    failed = sum(each.failed for each in seen)
    number = sum(each.rate * 5 for each in seen)
    middle = statistics.median(took)
    return [
        Figure(
            f"{swaps} swaps and {rollbacks} rollbacks under load",
            "0 failed requests",
            f"{failed} failed of {number:.0f}",
            reached=failed == 0,
        ),
        Figure(
            "rollback to a warm revision, the whole command, under load",
            f"less than {_ROLLBACK:.0f} s",
            f"{middle:.2f} s",
            reached=middle < _ROLLBACK,
            runs=", ".join(f"{each:.2f} s" for each in took),
        ),
    ]


def wrk(home: Home, request: Request, connections: int, seconds: int) -> Answered:
    """Return what wrk says of a request that it repeats."""
    script = home.scratch / f"wrk-{threading.get_ident()}.lua"
    body = script.with_suffix(".body")
    body.write_bytes(request.body)
    script.write_text(
        f'wrk.method = "POST"\nlocal file = io.open("{body}", "rb")\n'
        'wrk.body = file:read("*a")\nfile:close()\n'
        f'wrk.headers["Content-Type"] = "{request.kind}"\n'
    )
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), request.url]
    said = run(command).stdout
    middle = re.search(r"50%\s+([\d.]+)(us|ms|s)", said)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    if middle is None or rate is None:
        raise RuntimeError(f"wrk said: {said}")
    milliseconds = float(middle[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[middle[2]]
    failed = int(wrong[1]) if wrong else 0
    failed += sum(int(number) for number in errors.groups()) if errors else 0
    return Answered(milliseconds, float(rate[1]), failed)


@contextmanager
def _mlflow(home: Home, pickle: Path) -> Iterator[int]:
    python = _environment(home, "mlflow", "mlflow", "scikit-learn==1.9.1", "numpy==2.4.6")
    model = home.scratch / "mlflow-model"
    run([python, "-c", _MLFLOW, pickle, model])
    port = _free_port()
    command = [python.with_name("mlflow"), "models", "serve", "-m", model, "--env-manager", "local"]
    with _running([*command, "-p", str(port), "--workers", "1"], python, port, "/ping"):
        yield port


@contextmanager
def _bentoml(home: Home, pickle: Path) -> Iterator[int]:
    python = _environment(home, "bentoml", "bentoml", "scikit-learn==1.9.1", "numpy==2.4.6")
    folder = home.scratch / "bento"
    folder.mkdir(exist_ok=True)
    (folder / "service.py").write_text(_BENTO)
    port = _free_port()
    command = [python.with_name("bentoml"), "serve", "service:Digits", "--port", str(port)]
    with _running(command, python, port, "/readyz", cwd=folder, MODEL=str(pickle)):
        yield port


def _environment(home: Home, name: str, *packages: str) -> Path:
    python = home.scratch / f"{name}-environment" / "bin" / "python"
    if not python.exists():
        uv = Path(sys.executable).with_name("uv")
        run([uv, "venv", "--python", sys.executable, python.parent.parent])
        run([uv, "pip", "install", "--compile-bytecode", "--python", python, *packages])
    return python


@contextmanager
def _running(
    command: list[str | Path], python: Path, port: int, path: str, cwd: Path | None = None, **variables: str
) -> Iterator[None]:
    env = {**os.environ, **variables, "PATH": f"{python.parent}:{os.environ['PATH']}"}
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(command, env=env, cwd=cwd, stdout=nowhere, stderr=nowhere) as process:
        try:
            deadline = time.monotonic() + 120
            while not _get(f"http://127.0.0.1:{port}{path}"):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} does not start")
                time.sleep(0.2)
            yield
        finally:
            process.terminate()


def _answers(request: Request) -> bool:
    sent = urllib.request.Request(request.url, data=request.body, headers={"Content-Type": request.kind})
    try:
        with urllib.request.urlopen(sent, timeout=10) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _get(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
