"""The contract of a runtime, over real runs; then what only the process runtime promises."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab.containers import BASE

from kaos.errors import ConflictError
from kaos.image import PATH_HOLE, PROGRAM_HOLE
from kaos.lineage import ImageRecord
from kaos.resources import Resources
from kaos.runtime import cgroup, limits, proctree
from kaos.runtime.base import Environment, RunSpec, RunState, RunStatus, Runtime
from kaos.runtime.container.engine import Docker, Podman
from kaos.runtime.container.runtime import ContainerRuntime
from kaos.runtime.process import ProcessRuntime

SECONDS = 20.0


RUNTIMES: dict[str, Callable[[], Runtime]] = {
    "process": ProcessRuntime,
    "podman": lambda: ContainerRuntime(Podman()),
    "docker": lambda: ContainerRuntime(Docker(), network="host"),  # the only one that our daemon has
}


@pytest.fixture(
    params=[
        "process",
        pytest.param("podman", marks=pytest.mark.container),
        pytest.param("docker", marks=pytest.mark.container),
    ]
)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    if request.param != "process":
        request.getfixturevalue(request.param)
    return RUNTIMES[request.param]()


@pytest.fixture
def again(runtime: Runtime) -> str:
    """Return the Python that makes the same runtime, as `Runtime`, in another process."""
    name = runtime.engine.name if isinstance(runtime, ContainerRuntime) else "process"
    return f"from test_runtime import RUNTIMES\nRuntime = RUNTIMES[{name!r}]\n"


@pytest.fixture
def environment(tmp_path: Path, request: pytest.FixtureRequest) -> Environment | ImageRecord:
    if "runtime" in request.fixturenames and not isinstance(
        request.getfixturevalue("runtime"), ProcessRuntime
    ):
        engine = request.getfixturevalue("runtime").engine
        image = engine.image(BASE)
        assert image is not None
        return ImageRecord(
            engine=engine.name, name=BASE, id=image.id, workdir="/", train="/opt/program/train"
        )
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    return Environment(
        digest="0" * 64,
        python=venv / "bin" / "python",
        python_version="3.11",
        lock="",
        lock_digest="0" * 64,
        seconds=0,
        reused=True,
    )


Prepare = Callable[..., RunSpec]


@pytest.fixture
def prepare(tmp_path: Path, environment: Environment | ImageRecord, runtime: Runtime) -> Iterator[Prepare]:
    """Return what makes a run of a script given as text; whatever still runs in the end is ended."""
    directories: list[Path] = []

    def make(script: str, run_id: str = "run", **fields: object) -> RunSpec:
        program = tmp_path / run_id / "program"
        program.mkdir(parents=True, exist_ok=True)
        if not script.startswith("#!"):
            script = f"#!/usr/bin/env python3\n{script}"
        (program / "train").write_text(script)
        (program / "train").chmod(0o755)
        params = tmp_path / run_id / "params.json"
        params.write_text('{"degree": 5}')
        spec = RunSpec.model_validate(
            {
                "run_id": run_id,
                "job_id": "a" * 32,
                "program": program,
                "params": params,
                "output": tmp_path / run_id / "output",
                "directory": tmp_path / run_id / "records",
                "environment": environment,
                **fields,
            }
        )
        directories.append(spec.directory)
        return spec

    yield make
    for directory in directories:
        if (directory / "launch.json").exists():
            handle = runtime.find(directory)
            assert handle is not None
            runtime.terminate(handle, 0)


def wait(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def finish(runtime: Runtime, spec: RunSpec) -> tuple[RunStatus, list[str]]:
    lines: list[str] = []
    return runtime.follow(runtime.launch(spec), lines.append, 0.02), lines


def processes_with(text: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if text.encode() in command and proctree.Process.of(int(path.parent.name)) is not None:
            found.append(int(path.parent.name))
    return found


# The contract


def test_a_run_gets_what_the_contract_says(runtime: Runtime, prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("1,2\n")
    spec = prepare(
        "import json, os, sys\n"
        "from pathlib import Path\n"
        "assert Path.cwd() == Path(__file__).parent, Path.cwd()\n"
        "assert sys.argv[1] == os.environ['KAOS_OUTPUT']\n"
        "params = json.loads(Path(os.environ['KAOS_PARAMS']).read_text())\n"
        "data = (Path(os.environ['KAOS_DATA']) / 'a.csv').read_text()\n"
        "Path(sys.argv[1], 'model').write_text(f\"{params['degree']} {data}\")\n"
        "print('über', os.environ['KAOS_JOB'])\n",
        data=tmp_path / "data",
    )
    status, lines = finish(runtime, spec)
    assert (status.state, status.exit_code, status.reason) == (RunState.SUCCEEDED, 0, "")
    assert lines == [f"über {'a' * 32}"]
    assert (spec.output / "model").read_text() == "5 1,2\n"
    assert status.started_at is not None
    assert status.ended_at is not None
    assert status.started_at <= status.ended_at


def test_a_failing_script_fails_the_run_with_its_exit_code(runtime: Runtime, prepare: Prepare) -> None:
    status, lines = finish(runtime, prepare("import sys\nprint('oh', file=sys.stderr)\nsys.exit(3)"))
    assert (status.state, status.exit_code, status.reason) == (RunState.FAILED, 3, "exit code 3")
    assert lines == ["oh"]


def test_a_signal_is_named(runtime: Runtime, prepare: Prepare) -> None:
    status, _ = finish(runtime, prepare("import os\nos.kill(os.getpid(), 11)"))
    assert (status.state, status.exit_code) == (RunState.FAILED, 139)
    assert status.reason == "killed by signal 11 (SIGSEGV)"


def test_lines_can_be_read_while_the_script_runs(runtime: Runtime, prepare: Prepare) -> None:
    spec = prepare(
        "import sys, time\n"
        "from pathlib import Path\n"
        "for number in range(8):\n"
        "    print(time.time())\n"
        "    while not Path(sys.argv[1], str(number)).exists(): time.sleep(0.01)\n"
    )
    handle = runtime.launch(spec)
    text, offset, delays = b"", 0, []

    def printed() -> bool:
        nonlocal text, offset
        chunk, offset = runtime.logs(handle, offset)
        text += chunk
        return text.endswith(b"\n")  # which Python may write by itself

    for number in range(8):
        wait(printed)
        delays.append(time.time() - float(text))
        text = b""
        assert runtime.observe(handle).state is RunState.RUNNING
        (spec.output / str(number)).touch()  # it goes on when its line was read
    assert min(delays) < 0.2, delays  # the others tell how busy the machine is
    assert runtime.follow(handle, lambda line: None).state is RunState.SUCCEEDED


def test_a_log_without_a_last_line_end_and_with_broken_text_is_followed(
    runtime: Runtime, prepare: Prepare
) -> None:
    status, lines = finish(runtime, prepare("#!/bin/sh\nprintf 'a\\n\\377\\nend'"))
    assert lines == ["a", "\ufffd", "end"]
    assert status.state is RunState.SUCCEEDED


def test_a_large_log_is_read_in_parts_and_whole(runtime: Runtime, prepare: Prepare) -> None:
    _, lines = finish(runtime, prepare("for number in range(300_000): print(number)"))
    assert lines == [str(number) for number in range(300_000)]


def test_launching_a_living_run_again_returns_its_handle(runtime: Runtime, prepare: Prepare) -> None:
    spec = prepare("import os, time\nprint(os.getpid())\ntime.sleep(60)")
    handle = runtime.launch(spec)
    assert runtime.launch(spec) == handle
    wait(lambda: runtime.logs(handle)[0])
    assert len(runtime.logs(handle)[0].splitlines()) == 1


def test_a_run_that_has_ended_can_be_launched_anew(runtime: Runtime, prepare: Prepare) -> None:
    first, _ = finish(runtime, prepare("raise SystemExit(1)"))
    again = prepare("print('second')")
    handle = runtime.launch(again)
    lines: list[str] = []
    assert runtime.follow(handle, lines.append).state is RunState.SUCCEEDED
    assert lines == ["second"]
    assert first.state is RunState.FAILED


def test_terminate_ends_the_whole_tree_within_three_seconds(runtime: Runtime, prepare: Prepare) -> None:
    name = f"{os.getpid()}.25"
    spec = prepare(
        "#!/bin/sh\n"
        f"setsid sh -c 'trap \"\" TERM; echo in; while :; do sleep {name}; done' &\n"
        f"setsid env -i sleep {name} &\n"
        f"trap '' TERM\nsleep {name}\nsleep {name}\n"
    )
    handle = runtime.launch(spec)
    wait(lambda: len(processes_with(name)) >= 4)
    began = time.monotonic()
    runtime.terminate(handle)
    assert time.monotonic() - began < 3
    assert processes_with(name) == []
    status = runtime.observe(handle)
    assert (status.state, status.terminated) == (RunState.FAILED, True)
    assert status.reason.startswith("terminated")


def test_terminate_gives_the_script_its_grace(runtime: Runtime, prepare: Prepare) -> None:
    spec = prepare(
        "import signal, sys, time\n"
        "def end(*_):\n    time.sleep(0.3); print('saved'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\nprint('ready')\ntime.sleep(60)"
    )
    handle = runtime.launch(spec)
    wait(lambda: runtime.logs(handle)[0])
    runtime.terminate(handle, grace_seconds=5)
    assert runtime.logs(handle)[0] == b"ready\nsaved\n"
    status = runtime.observe(handle)
    assert (status.state, status.exit_code, status.reason) == (RunState.FAILED, 0, "terminated")


def test_terminating_what_has_ended_changes_nothing(runtime: Runtime, prepare: Prepare) -> None:
    handle = runtime.launch(prepare("print(1)"))
    status = runtime.follow(handle, lambda line: None)
    runtime.terminate(handle)
    assert runtime.observe(handle) == status


def test_what_the_script_leaves_behind_ends_with_it(runtime: Runtime, prepare: Prepare) -> None:
    name = f"{os.getpid()}.75"
    status, _ = finish(runtime, prepare(f"#!/bin/sh\nsetsid sleep {name} &\nsleep 0.2\nexit 0"))
    assert status.state is RunState.SUCCEEDED
    assert processes_with(name) == []


def test_another_process_can_take_over(runtime: Runtime, prepare: Prepare, again: str) -> None:
    handle = runtime.launch(prepare("import time\nprint(1)\ntime.sleep(0.5)\nprint(2)"))
    code = f"import sys\n{again}status = Runtime().follow(sys.argv[1], print)\nprint(status.state.value)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.run(
        [sys.executable, "-c", code, handle], env=environment, capture_output=True, text=True, check=True
    )
    assert other.stdout.split() == ["1", "2", "succeeded"]


def test_a_run_survives_the_process_that_launched_it(runtime: Runtime, prepare: Prepare, again: str) -> None:
    spec = prepare("import time\ntime.sleep(0.7)\nprint('done')")
    code = (
        f"import os, signal, sys\n{again}"
        "from kaos.runtime.base import RunSpec\n"
        "print(Runtime().launch(RunSpec.parse(sys.argv[1])), flush=True)\n"
        "os.killpg(0, signal.SIGKILL)"
    )
    worker = subprocess.run(
        [sys.executable, "-c", code, spec.encode().decode()],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        start_new_session=True,
        check=False,
        text=True,
    )
    assert worker.returncode == -signal.SIGKILL
    lines: list[str] = []
    assert runtime.follow(worker.stdout.strip(), lines.append).state is RunState.SUCCEEDED
    assert lines == ["done"]


def test_memory_that_runs_out_is_named_with_the_limit(runtime: Runtime, prepare: Prepare) -> None:
    spec = prepare("x = bytearray(400 << 20)\nprint(len(x))", resources=Resources.parse(memory="128Mi"))
    status, _ = finish(runtime, spec)
    assert status.state is RunState.FAILED
    assert "out of memory: limit 128Mi" in status.reason
    assert "memory 128Mi by " in status.limits


def test_a_run_within_its_limits_succeeds(runtime: Runtime, prepare: Prepare) -> None:
    status, lines = finish(
        runtime,
        prepare("import os\nprint(os.environ['OMP_NUM_THREADS'])", resources=Resources.parse("0.5", "256Mi")),
    )
    assert status.state is RunState.SUCCEEDED
    assert lines == ["1"]
    assert "cpu 0.5 by " in status.limits


def test_a_script_that_cannot_start_says_why(runtime: Runtime, prepare: Prepare) -> None:
    spec = prepare("print(1)")
    (spec.program / "train").chmod(0o644)
    status, _ = finish(runtime, spec)
    assert (status.state, status.exit_code) == (RunState.FAILED, 126)
    assert "is not executable" in status.reason
    if isinstance(runtime, ProcessRuntime):
        status, _ = finish(runtime, spec.model_copy(update={"executables": ("train",)}))
        assert status.state is RunState.SUCCEEDED


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"print(1)\n", "does not say what runs it"),
        (b"#!/nowhere/python\n", "wants an interpreter that is not there: #!/nowhere/python"),
        (b"#!/bin/sh\r\n", "Unix line ends"),
        (None, "./train is not there"),
    ],
)
def test_a_broken_script_says_what_is_wrong(
    runtime: Runtime, prepare: Prepare, content: bytes | None, says: str
) -> None:
    if content == b"print(1)\n" and not isinstance(runtime, ProcessRuntime):
        pytest.skip("the build of the image refuses it")
    spec = prepare("")
    (spec.program / "train").unlink()
    if content is not None:
        (spec.program / "train").write_bytes(content)
        (spec.program / "train").chmod(0o755)
    status, _ = finish(runtime, spec)
    assert status.state is RunState.FAILED
    assert status.exit_code in (126, 127)
    assert says in status.reason


# The process runtime

process_only = pytest.mark.parametrize("runtime", ["process"], indirect=True)


@process_only
def test_user_code_sees_nothing_of_the_server(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIRFLOW__CORE__FERNET_KEY", "AWS_SECRET_ACCESS_KEY", "KAOS_TOKEN", "PYTHONPATH"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy")
    monkeypatch.setenv("KAOS_INSTANCE", "instance-1")
    spec = prepare(
        "import json, os\n"
        "fds = [int(n) for n in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{n}')]\n"
        "own = os.getsid(0) == os.getpid()\n"
        "print(json.dumps([dict(os.environ), sorted(fds), os.readlink('/proc/self/fd/0'), own]))",
        env={"PATH": f"{PROGRAM_HOLE}/bin:{PATH_HOLE}", "MINE": "1", "KAOS_JOB": "not mine"},
        resources=Resources(cpu=1.5, gpu=0),
    )
    with socket.socket() as held:
        held.set_inheritable(True)
        status, lines = finish(ProcessRuntime(), spec)
    assert status.state is RunState.SUCCEEDED
    seen, descriptors, stdin, own_session = json.loads(lines[0])
    assert "secret" not in lines[0]
    assert not [name for name in seen if name.startswith("AIRFLOW")]
    assert descriptors == [0, 1, 2]
    assert stdin == "/dev/null"
    assert own_session
    assert seen["PATH"].startswith(f"{spec.program}/bin:{spec.environment.python.parent}:/usr/local/sbin:")
    assert seen["HTTP_PROXY"] == "http://proxy"
    assert (seen["MINE"], seen["KAOS_JOB"], seen["KAOS_INSTANCE"]) == ("1", "a" * 32, "instance-1")
    assert (seen["PYTHONHASHSEED"], seen["PYTHONUNBUFFERED"], seen["LANG"]) == ("0", "1", "C.UTF-8")
    assert (seen["OMP_NUM_THREADS"], seen["CUDA_VISIBLE_DEVICES"]) == ("2", "")
    assert len(seen["TMPDIR"]) < 60
    assert not Path(seen["TMPDIR"]).exists()
    assert Path(seen["HOME"]).parent == spec.directory


@process_only
def test_records_and_logs_are_for_the_user_alone(prepare: Prepare) -> None:
    spec = prepare("open('made', 'w').close()")
    finish(ProcessRuntime(), spec)
    assert spec.directory.stat().st_mode & 0o077 == 0
    for path in (spec.directory / "launch.json", spec.directory / "run.log", spec.program / "made"):
        assert path.stat().st_mode & 0o077 == 0


def pids_of(spec: RunSpec) -> tuple[int, int]:
    record = json.loads((spec.directory / "process.json").read_text())
    return record["wrapper"][0], record["script"][0]


@process_only
def test_a_run_whose_wrapper_and_script_were_killed_is_lost(prepare: Prepare) -> None:
    runtime = ProcessRuntime()
    spec = prepare("import time\ntime.sleep(60)")
    handle = runtime.launch(spec)
    wrapper_pid, script_pid = pids_of(spec)
    os.kill(wrapper_pid, signal.SIGKILL)
    wait(lambda: proctree.Process.of(wrapper_pid) is None)
    assert runtime.observe(handle).state is RunState.RUNNING
    assert runtime.launch(spec) == handle
    os.kill(script_pid, signal.SIGKILL)
    wait(lambda: runtime.observe(handle).ended)
    status = runtime.observe(handle)
    assert status.state is RunState.LOST
    assert "nobody saw how it ended" in status.reason
    runtime.terminate(handle)
    assert runtime.observe(handle).state is RunState.LOST


@process_only
def test_a_run_without_its_wrapper_can_be_terminated(prepare: Prepare) -> None:
    runtime = ProcessRuntime()
    name = f"{os.getpid()}.5"
    spec = prepare(f"#!/bin/sh\nsetsid sleep {name} &\ntrap '' TERM\nsleep {name}; sleep {name}")
    handle = runtime.launch(spec)
    wait(lambda: len(processes_with(name)) >= 2)
    os.kill(pids_of(spec)[0], signal.SIGKILL)
    began = time.monotonic()
    runtime.terminate(handle)
    assert time.monotonic() - began < 3
    assert processes_with(name) == []
    status = runtime.observe(handle)
    assert (status.state, status.reason, status.terminated) == (RunState.FAILED, "terminated", True)


@process_only
def test_a_wrapper_that_does_not_answer_is_killed_too(prepare: Prepare) -> None:
    runtime = ProcessRuntime()
    spec = prepare("import time\ntime.sleep(60)")
    handle = runtime.launch(spec)
    os.kill(pids_of(spec)[0], signal.SIGSTOP)
    began = time.monotonic()
    runtime.terminate(handle)
    assert time.monotonic() - began < 3
    assert all(proctree.Process.of(pid) is None for pid in pids_of(spec))
    assert runtime.observe(handle).terminated


@process_only
def test_an_older_handle_is_not_taken_for_the_new_run(prepare: Prepare) -> None:
    runtime = ProcessRuntime()
    spec = prepare("import time\ntime.sleep(60)")
    first = runtime.launch(spec)
    runtime.terminate(first)
    second = runtime.launch(spec)
    status = runtime.observe(first)
    assert (status.state, status.reason) == (RunState.LOST, "a later launch took its place")
    runtime.terminate(first)
    assert runtime.observe(second).state is RunState.RUNNING


@process_only
def test_two_runs_in_one_directory_are_refused(prepare: Prepare) -> None:
    runtime = ProcessRuntime()
    spec = prepare("import time\ntime.sleep(60)")
    runtime.launch(spec)
    with pytest.raises(ConflictError, match="still alive"):
        runtime.launch(spec.model_copy(update={"run_id": "other"}))


def test_a_run_whose_directory_is_gone_is_lost() -> None:
    handle = json.dumps({"directory": "/nowhere/at/all", "key": "0"})
    assert ProcessRuntime().observe(handle).reason == "its directory /nowhere/at/all is gone"
    assert ProcessRuntime().logs(handle) == (b"", 0)


@process_only
def test_no_control_group_is_left(prepare: Prepare) -> None:
    spec = prepare("print(1)", resources=Resources.parse("1", "128Mi"))
    finish(ProcessRuntime(), spec)
    record = json.loads((spec.directory / "process.json").read_text())
    wait(lambda: not any(Path(path).exists() for path in record["cgroups"]))


def test_the_wrapper_loads_nothing_but_the_standard_library() -> None:
    code = "import sys, kaos.runtime.wrapper; print({'pydantic', 'psutil', 'subprocess'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": str(Path(limits.__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"


# Limits where the machine gives no control groups, and the files of both versions


@pytest.fixture
def sleeper() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def test_without_control_groups_rlimit_and_affinity_hold(
    sleeper: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "own_mounts", lambda: cgroup.Mounts(None, {}))
    applied = limits.apply(sleeper, "kaos-0000000f", cpu=0.5, memory=2**28, memory_shown="256Mi")
    assert applied.words == (
        "memory 256Mi by rlimit (address space, of each process by itself), cpu 0.5 by affinity (1 core)"
    )
    assert len(os.sched_getaffinity(sleeper)) == 1
    limit = next(
        line
        for line in Path(f"/proc/{sleeper}/limits").read_text().splitlines()
        if line.startswith("Max address")
    )
    assert str(2**28) in limit


def test_no_limits_asked_for_are_none(sleeper: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "own_mounts", lambda: cgroup.Mounts(None, {}))
    assert limits.apply(sleeper, "kaos-0", cpu=None, memory=None, memory_shown="").words == "none asked for"


def fake_group(directory: Path, *names: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).touch()


def test_delegated_controllers_of_version_2_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "app.slice" / "kaos.scope"
    fake_group(own, "cgroup.procs", "cgroup.controllers", "cgroup.subtree_control")
    for name in ("cgroup.controllers", "cgroup.subtree_control"):
        (own.parent / name).write_text("cpu memory pids")
    made = own.parent / "kaos-1"
    kernel = cgroup._make

    def make(directory: Path) -> Path | None:
        fake_group(directory, "cgroup.procs", "cpu.max", "memory.max", "memory.swap.max", "memory.events")
        return kernel(directory)

    monkeypatch.setattr(cgroup, "_make", make)
    group = cgroup.create("kaos-1", cpu=1.5, memory=2**20, at=cgroup.Mounts(own, {}))
    assert group == cgroup.Group((made,), True, True, "cgroup v2")
    assert (made / "cpu.max").read_text() == "150000 100000"
    assert (made / "memory.max").read_text() == str(2**20)
    assert (made / "memory.swap.max").read_text() == "0"
    assert group.add(42)
    assert group.pids() == {42}
    (made / "memory.events").write_text("low 0\noom 1\noom_kill 2\n")
    assert group.out_of_memory() == 2


def test_our_own_groups_are_found_from_what_the_kernel_says(tmp_path: Path) -> None:
    (tmp_path / "memory" / "job").mkdir(parents=True)
    mountinfo = (
        f"30 25 0:26 / {tmp_path}/unified rw - cgroup2 cgroup2 rw\n"
        f"31 25 0:27 / {tmp_path}/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n"
        f"32 25 0:28 /docker/1 {tmp_path}/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
        "33 25 0:29 / /proc rw - proc proc rw\n"
    )
    membership = "4:memory:/job\n1:cpu,cpuacct:/docker/1\n0::/\n"
    assert cgroup.mounts(mountinfo, membership) == cgroup.Mounts(
        tmp_path / "unified", {"memory": tmp_path / "memory" / "job", "cpu": tmp_path / "cpu"}
    )
