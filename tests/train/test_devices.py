"""`gnflow run --devices N` with real processes: faults, and the bits of a run in one process."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny
from full_disk import no_file_beyond
from mirroring import wait_until
from processes import directory_of, project
from ruamel.yaml import YAML

from gnflow.train import results
from gnflow.train.join import choose_backend, find_interface
from gnflow.train.journal import read

PATIENCE = {"GNFLOW_WAIT_SECONDS": "5"}


@contextmanager
def running(spec: Path, devices: int, *options: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A run in several processes that has recorded a step or more."""
    before = len(records(spec))
    process = started(spec, devices, *options, **environment)
    try:
        wait_until(lambda: len(records(spec)) > before + 1 or process.poll() is not None)
        yield process
    finally:
        process.kill()
        process.communicate()


def started(spec: Path, devices: int, *options: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gnflow", "run", spec, "--devices", str(devices), *options],
        env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str]:
    """The exit code and all that was said."""
    output = "".join(process.communicate(timeout=seconds))
    return process.returncode, output


def finished(spec: Path, devices: int, *options: str, **environment: str) -> tuple[int, str]:
    return ended(started(spec, devices, *options, **environment), 120)


def records(spec: Path) -> list[int]:
    return list(read(directory_of(spec) / "journal.jsonl").steps)


def process_of(launcher: subprocess.Popen[str], rank: int) -> int:
    """The id of the process of this rank."""
    for folder in Path("/proc").iterdir():
        own = folder.name.isdecimal() and parent_of(folder) == launcher.pid
        if own and f"RANK={rank}" in (folder / "environ").read_text().split("\0"):
            return int(folder.name)
    raise AssertionError(f"process {rank} is not there")


def parent_of(folder: Path) -> int:
    try:
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def listening(process: int) -> set[str]:
    """The addresses at which a process listens, in the kernel's hexadecimal."""
    sockets = {str(link.readlink()) for link in Path(f"/proc/{process}/fd").iterdir() if link.is_symlink()}
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]
    ]
    return {line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets}


def bits(spec: Path) -> list[str]:
    """Digests of the weights and of the state at the end of a run."""
    last = sorted((directory_of(spec) / "checkpoints").glob("step_*"))[-1]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(last.glob("*.safetensors"))]


def test_processes_listen_on_the_loopback_interface_and_stop_together(tmp_path: Path) -> None:
    spec = project(tmp_path, 4, steps=5000, shares=4)
    with running(spec, 2) as process:
        addresses = {address for rank in (0, 1) for address in listening(process_of(process, rank))}
        assert addresses == {"0100007F"}, "127.0.0.1"
        assert not listening(process.pid)
        os.kill(process_of(process, 1), signal.SIGTERM)  # one process alone
        code, said = ended(process)
    assert code == 6, said
    assert results.read_status(directory_of(spec)) == results.PREEMPTED
    assert "stopped after step" in said
    assert said.count("stopped after step") == 1, "process 0 alone says so"
    assert (directory_of(spec) / "logs" / "rank_1.txt").exists()


def test_devices_that_would_wait_are_refused_with_a_cure(tmp_path: Path) -> None:
    spec = project(tmp_path, 4, steps=2)
    code, said = finished(spec, 2)
    assert code == 3
    assert "training.shares=2" in said
    assert said.count("training.shares=2") == 1


def started_alone(spec: Path, rank: int, *, before: tuple[str, ...] = (), **environment: str) -> subprocess.Popen[str]:
    """One of two processes, as a launcher on a machine of its own starts it."""
    variables = {
        "RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
        **environment,
    }  # fmt: skip
    return subprocess.Popen(
        [*before, sys.executable, "-m", "gnflow", "run", spec], env={**os.environ, **variables},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.faults
def test_machines_that_do_not_share_the_run_directory_are_refused(tmp_path: Path) -> None:
    specs = [project(tmp_path / place, 4, steps=2, shares=4) for place in ("here", "there")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [started_alone(spec, rank, MASTER_PORT=port) for rank, spec in enumerate(specs)]
    (code, said), (other, _) = (ended(process) for process in processes)
    assert (code, other) == (7, 7), said
    assert "process 1 of 2 does not see the run directory of process 0" in said
    assert f"{directory_of(specs[1])}" in said


def test_gpus_talk_by_nccl_and_cpus_by_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert [choose_backend(wants_gpu) for wants_gpu in (True, False)] == ["nccl", "gloo"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_backend(wants_gpu=True) == "gloo"


def test_the_interface_is_the_one_that_leads_to_process_0() -> None:
    assert find_interface("127.0.0.1") == "lo"
    assert find_interface("no such host") is None


NETWORKS = """
set -e
unshare --net sleep 1000 & other=$!
trap "kill $other" EXIT
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.05; done
ip link add name left type veth peer name right netns $other
ip address add 10.77.0.1/24 dev left; ip link set left up; ip link set lo up
there="nsenter --target $other --net"
$there ip address add 10.77.0.2/24 dev right; $there ip link set right up; $there ip link set lo up
"$@" & first=$!
RANK=1 $there "$@" && wait $first
"""


def joined_networks(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Two processes of a run, each in a network namespace of its own; a pair of virtual cards joins the two."""
    variables = {
        "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29500", **environment,
    }  # fmt: skip
    return subprocess.run(
        ["unshare", "--map-root-user", "--net", "bash", "-c", NETWORKS, "bash", *map(str, command)],
        env={**os.environ, **variables}, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip


@pytest.mark.faults
def test_two_machines_have_the_bits_of_one(tmp_path: Path) -> None:
    try:
        possible = joined_networks("true")
    except FileNotFoundError as missing:
        pytest.skip(f"network namespaces need unshare, nsenter and ip: {missing}")
    if possible.returncode:
        pytest.skip(f"network namespaces cannot be made here: {possible.stderr.strip()}")
    alone, spec = (project(tmp_path / place, 4, steps=6, shares=4) for place in ("alone", "apart"))
    assert finished(alone, 1)[0] == 0
    done = joined_networks(sys.executable, "-m", "gnflow", "run", spec)
    assert done.returncode == 0, done.stdout + done.stderr
    assert bits(spec) == bits(alone)


LAYERWISE = {
    "kind": "gauss_newton", "blocks": "layer", "inner": "muon", "inner_steps": 2, "average": 1.0,
    "search": {"kind": "geometric", "trials": 2, "microbatches": 4},
}  # fmt: skip


def layerwise(root: Path, **training: object) -> Path:
    """A project whose model has four blocks."""
    path = tiny.write_project(root) / "tiny.yaml"
    tree = tiny.tiny(start="scratch", checkpoint_every=10_000, **training)
    model = {"kind": "decoder", "layers": 2, "width": 16, "heads": 2}
    YAML().dump(tree | {"optimizer": LAYERWISE, "model": model}, path)
    return path


def by_part(root: Path, **training: object) -> Path:
    """A project with SOAP, whose updates are made by parts."""
    path = tiny.write_project(root) / "tiny.yaml"
    tree = tiny.tiny(start="scratch", checkpoint_every=10_000, shares=4, **training)
    optimizer = {"kind": "soap", "microbatches": 4, "precondition_frequency": 2, "clip": 1.0}
    YAML().dump(tree | {"optimizer": optimizer, "compile": {"mode": "off", "update": "parts"}}, path)
    return path


@pytest.mark.faults
@pytest.mark.parametrize("method", ["adamw", "layerwise", "by_part"])
def test_a_run_begun_on_4_devices_killed_on_2_and_finished_on_3_is_the_run_on_1(method: str, tmp_path: Path) -> None:
    every = {"temporary_checkpoint_minutes": 0.001}

    def made(root: Path) -> Path:
        if method == "layerwise":
            return layerwise(root, steps=40, **every)
        if method == "by_part":
            return by_part(root, steps=40, **every)
        return project(root, 4, steps=40, shares=4, **every)

    alone, spec = made(tmp_path / "alone"), made(tmp_path / "moved")
    assert finished(alone, 1)[0] == 0
    with running(spec, 4) as process:
        os.kill(process_of(process, 3), signal.SIGKILL)
        code, said = ended(process)
    assert code == 7, said
    assert "process 3 of 4 is gone (killed by SIGKILL)" in said
    code, said = finished(spec, 2, GNFLOW_FAULT="checkpoint.after_write:2")
    assert code == 7, said
    assert "process 0 of 2 is gone" in said
    assert max(records(spec)) < 40
    code, said = finished(spec, 3)
    assert code == 0, said
    assert bits(spec) == bits(alone)


@pytest.mark.faults
def test_a_run_that_loses_a_process_starts_again_by_itself(tmp_path: Path) -> None:
    spec = project(tmp_path, 4, steps=400, shares=4)
    with running(spec, 2, "--restarts", "2", "--fresh") as process:
        os.kill(process_of(process, 1), signal.SIGKILL)
        code, said = ended(process, 120)
    assert code == 0, said
    assert "starting again from the newest checkpoint (1 of at most 2)" in said


@pytest.mark.faults
def test_a_process_that_hangs_is_not_waited_for_without_end(tmp_path: Path) -> None:
    spec = project(tmp_path, 4, steps=50_000, shares=4)
    with running(spec, 2, **PATIENCE) as process:
        stopped = process_of(process, 1)
        began = time.monotonic()
        os.kill(stopped, signal.SIGSTOP)
        code, said = ended(process, 120)
    assert code == 7, said
    assert "has lost the others" in said
    assert time.monotonic() - began < 5 + 30 + 20, "torch waits 30 s before it kills a process"
    assert not Path(f"/proc/{stopped}").exists()


@pytest.mark.faults
def test_a_full_disk_ends_all_processes_with_its_own_words(tmp_path: Path) -> None:
    spec = project(tmp_path, 4, steps=50_000, shares=4)
    subprocess.run([sys.executable, "-m", "gnflow", "prepare", spec], check=True, capture_output=True)
    with no_file_beyond(20_000):
        process = started(spec, 2)
    code, said = ended(process)
    assert code == 8, said
    assert "cannot be written" in said


@pytest.mark.faults
def test_a_slow_process_is_named_and_the_run_goes_on(tmp_path: Path) -> None:
    spec = project(tmp_path, 4, steps=14, shares=4)
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('RANK') == '1':\n"
        "    import time\n"
        "    import gnflow.compiler.program as program\n"
        "    quick = program.Program.step\n"
        "    program.Program.step = lambda *arguments: (time.sleep(0.5), quick(*arguments))[1]\n"
    )
    code, said = finished(spec, 2, PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    assert code == 0, said
    journal = read(directory_of(spec) / "journal.jsonl")
    (event,) = (event for event in journal.events if event.name == "slow")
    assert event.message.startswith("process 1 of 2 has computed for 0.5")
    assert f"step {event.step}: slow: process 1 of 2" in said
    last = journal.last.values
    assert last["time/device_seconds"] == pytest.approx(2 * last["time/seconds"])
    assert 0.8 * last["time/seconds"] < last["time/waited"] < last["time/seconds"], "process 0 has waited"


@pytest.mark.faults
def test_an_error_in_one_process_ends_all_with_its_code(tmp_path: Path) -> None:
    spec = project(tmp_path, 4, steps=50_000, shares=4)
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('RANK') == '1':\n"
        "    import gnflow.train.session as session\n"
        "    from gnflow.errors import DiskProblem\n"
        "    def fail(self):\n"
        "        raise DiskProblem('this process cannot go on')\n"
        "    session.Session._wants_saving = fail\n"
    )
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    code, said = finished(spec, 2, PYTHONPATH=path)
    assert code == 8, said
    assert "process 1 of 2 failed; its words are in logs/rank_1.txt" in said
    assert "this process cannot go on" in (directory_of(spec) / "logs" / "rank_1.txt").read_text()
