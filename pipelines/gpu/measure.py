"""`make gpu`: the tests that need a GPU, a short `full_gn`, the benchmarks, and a dated note of all in docs/gpu.md."""

import datetime
import json
import platform
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
NOTES = ROOT / "docs" / "gpu.md"
RUN = ROOT / "runs" / "gpu"
BENCHMARKS = ROOT / "pipelines" / "benchmarks"
STEPS = 4
NOTHING_YET = "No GPU figure has been recorded yet."


def main() -> int:
    """0 without a GPU or when all is well; else the exit code of the tests or of the run."""
    if not torch.cuda.is_available():
        print(f"no GPU: torch {torch.__version__} sees no CUDA device here. Nothing was run, docs/gpu.md is as it was.")
        return 0
    tests, verdict = gpu_tests()
    code = short_run()
    if code:
        print(f"the run ended with exit code {code}; no note was written")
        return code
    code = subprocess.run([sys.executable, BENCHMARKS / "measure.py"], cwd=ROOT, check=False).returncode
    if code:
        print(f"the benchmarks ended with exit code {code}; no note was written")
        return code
    append(note(verdict) + benchmarks((BENCHMARKS / "results.md").read_text()))
    return tests


def gpu_tests() -> tuple[int, str]:
    """Exit code and closing line. Only files with such tests are collected: a GPU machine may lack what others need."""
    files = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    if not files:
        return 0, "there are none"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "-q", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout, done.stderr, sep="\n")
    lines = done.stdout.strip().splitlines()
    return done.returncode, lines[-1].strip("= ") if lines else "no output"


def short_run() -> int:
    """Train in this process, so that its peak memory can be read."""
    from gnflow.cli import main as gnflow

    settings = ("name=gpu", "tracking=none", "training.device=cuda", f"training.steps={STEPS}", "training.target=null")
    sys.argv = ["gnflow", "run", str(ROOT / "specs" / "full_gn.yaml"), "--fresh", "--run-dir", str(RUN)]
    sys.argv += [word for setting in settings for word in ("--set", setting)]
    torch.cuda.reset_peak_memory_stats()
    try:
        gnflow()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def note(tests: str) -> str:
    """One dated section."""
    summary = json.loads((RUN / "summary.json").read_text())
    device = torch.cuda.get_device_properties(0)
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    commit = git.stdout.strip() or f"without a commit ({' '.join(git.stderr.split())})"
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    speed = summary["tokens/total"] / summary["time/seconds"]
    peak = torch.cuda.max_memory_allocated() / 2**20
    return (
        f"## {today}: {device.name}, {device.total_memory / 2**30:.0f} GiB\n\n"
        f"gnflow {commit}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"CUDA {torch.version.cuda}.\n\n"
        f"- Tests marked `gpu`: {tests}.\n"
        f"- `specs/full_gn.yaml`, {summary['steps']} steps: {speed:,.0f} tokens/s in optimizer steps "
        f"({summary['time/seconds']:.1f} s, compilation apart), peak memory {peak:,.0f} MiB, "
        f"held-out loss {summary['loss/held_out']:.4f}.\n"
    )


def benchmarks(report: str) -> str:
    """The GPU's table of the benchmarks."""
    _, _, table = report.partition("## GPU")
    rows = "\n".join(line for line in table.splitlines() if line.startswith("|"))
    return f"\nBenchmarks, milliseconds (`pipelines/benchmarks`):\n\n{rows}\n"


def append(section: str) -> None:
    """Add it to docs/gpu.md, in place of the sentence that says there is none."""
    text = NOTES.read_text().replace(f"{NOTHING_YET} ", "")
    NOTES.write_text(f"{text.rstrip()}\n\n{section}")
    print(section)


if __name__ == "__main__":
    sys.exit(main())
