"""Seconds of a study, one run after another and two at a time on Ray: `gnflow study work`.

    python pipelines/benchmarks/studies.py [--seeds 4] [--steps 250] [--on ray]

Two methods with some seeds each, in a project of their own in a temporary folder, every run with one thread and without
compilation. First `--on processes --slots 1`, then `--on ray --slots 2`, both with everything from the start of the
command to its end, the start of Ray included. The data is prepared before. The weights of both must have the same bits.
Ray is started in a network namespace that has loopback alone, where that is permitted.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPEC = """
name: {name}
model: {{kind: decoder, layers: 2, width: 64, heads: 4}}
data: {{kind: text, context: 64}}
optimizer: {{kind: {name}, microbatches: 4}}
training: {{steps: {steps}, rows: 8, device: cpu, start: scratch, evaluate_every: {steps}, checkpoint_every: {steps}}}
metrics: [{{kind: loss, microbatches: 1}}, cost]
compile: {{mode: off}}
tracking: none
"""
STUDY = """
name: spread
arms: {{adamw: ../../specs/adamw.yaml, muon: ../../specs/muon.yaml}}
seeds: {seeds}
targets: [0.1]
"""
ISOLATED = ["unshare", "-n" if os.geteuid() == 0 else "-Urn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def write_project(root: Path, seeds: int, steps: int) -> Path:
    """Write the specs and the study, and prepare the data. Return the folder of the study."""
    folder = root / "pipelines" / "spread"
    folder.mkdir(parents=True)
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "specs").mkdir()
    for name in ("adamw", "muon"):
        (root / "specs" / f"{name}.yaml").write_text(SPEC.format(name=name, steps=steps))
    (folder / "study.yaml").write_text(STUDY.format(seeds=list(range(1, seeds + 1))))
    run(root, "prepare", "specs/adamw.yaml")
    return folder


def run(root: Path, *arguments: str, around: list[str] | None = None) -> float:
    """Run gnflow and return the seconds that it took."""
    command = [*(around or []), sys.executable, "-m", "gnflow", *arguments]
    began = time.perf_counter()
    subprocess.run(command, cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    return time.perf_counter() - began


def read_weights(root: Path) -> dict[str, bytes]:
    """Return the weights of every run, by its directory."""
    runs = root / "runs"
    found = sorted(runs.glob("*/*/*/model/params.safetensors"))
    return {path.relative_to(runs).as_posix(): path.read_bytes() for path in found}


def main() -> None:
    """Measure both, and print the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--on", choices=["processes", "ray"], default="ray")
    asked = parser.parse_args()
    isolated = subprocess.run([*ISOLATED, "true"], capture_output=True, check=False).returncode == 0
    if asked.on == "ray" and not isolated:
        sys.exit("no network namespace can be made here, and without one Ray would listen on the network")
    with tempfile.TemporaryDirectory(prefix="gnflow-") as name:
        root = Path(name)
        folder = os.fspath(write_project(root, asked.seeds, asked.steps).relative_to(root))
        load = os.getloadavg()[0]
        one = run(root, "study", "work", folder, "--on", "processes", "--slots", "1")
        before = read_weights(root)
        shutil.rmtree(root / "runs")
        around = ISOLATED if asked.on == "ray" else None
        two = run(root, "study", "work", folder, "--on", asked.on, "--slots", "2", around=around)
        same = len(before) == 2 * asked.seeds and before == read_weights(root)
    result = {
        "runs": 2 * asked.seeds, "seconds_one_after_another": round(one, 1), "seconds_two_at_a_time": round(two, 1),
        "ratio": round(one / two, 2), "on": asked.on, "same_bits": same, "load_before": round(load, 1),
        "cores": len(os.sched_getaffinity(0)),
    }  # fmt: skip
    print(json.dumps(result))
    if not same:
        sys.exit("OTHER BITS")


if __name__ == "__main__":
    main()
