"""Times every case of cases.py and writes results.json and results.md: medians of interleaved runs in one process."""

import datetime
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from cases import BASES, DECODERS, Case, cases  # noqa: E402  # a script's neighbour
from peers import list_missing  # noqa: E402

from gnflow.train.allocator import keep_memory  # noqa: E402

RUNS = 7
FEWEST, SECONDS = 3, 120.0  # fewer runs than RUNS where a case has taken longer than this
WARM_UP, SLOW = 2, 60.0  # calls before the clock counts: the first compiles; one is enough of what takes so long


def main(
    folder: Path = HERE,
    decoders: tuple[tuple[int, int], ...] = DECODERS,
    bases: tuple[int, ...] = BASES,
    runs: int = RUNS,
) -> None:
    """Measure on the CPU, and on the GPU where there is one. Freed memory is kept, as it is in a run."""
    keep_memory()
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    result = {
        "machine": machine(),
        **{device: [measured(case, device, runs) for case in cases(device, decoders, bases)] for device in devices},
        "load_after": os.getloadavg()[0],
    }
    (folder / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "results.md").write_text(report(result))


def machine() -> dict[str, object]:
    """What the figures depend on."""
    info = Path("/proc/cpuinfo")
    models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "missing": list_missing(),
    }


def measured(case: Case, device: str, runs: int) -> dict[str, object]:
    """Milliseconds a step; ours and theirs in turn, so that whatever slows the machine slows both."""
    torch.manual_seed(0)
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    pair = [("ours", case.ours), ("theirs", case.theirs)]
    for _, function in pair:
        for _ in range(WARM_UP):
            if timed(function, device) > SLOW:
                break
    start = time.perf_counter()
    for i in range(runs):
        if i >= FEWEST and time.perf_counter() - start > SECONDS:
            break
        for name, function in pair if i % 2 else reversed(pair):
            seconds[name].append(timed(function, device))
    ours, theirs = (quartiles([1e3 * s / case.steps for s in seconds[name]]) for name in ("ours", "theirs"))
    ratio = ours[1] / theirs[1]
    row = {
        "what": case.what,
        "size": case.size,
        "runs": len(seconds["ours"]),
        "ours_ms": ours,
        "theirs_ms": theirs,
        "ratio": ratio,
    }
    print(f"{device} {case.what}, {case.size}: {ratio:.3f}", flush=True)
    return {**row, "target": case.target}


def timed(function: Callable[[], object], device: str) -> float:
    """Seconds of one call, until the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.no_grad():
        function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def quartiles(values: list[float]) -> list[float]:
    """First quartile, median, third."""
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3


def report(result: dict[str, object]) -> str:
    """The results in Markdown."""
    about = result["machine"]
    assert isinstance(about, dict)
    lines = [
        "# Benchmarks",
        "",
        f"{about['date']}, {about['cpu']}, {about['cores']} cores, {about['threads']} threads, "
        f"load {about['load_before']:.1f} before and {result['load_after']:.1f} after, torch {about['torch']}.",
        "Milliseconds a step: median, and quartiles in brackets, of interleaved runs in one process.",
    ]
    if missing := about.get("missing"):
        lines.append(f"Not installed, and so not compared: {', '.join(map(str, missing))}.")
    for device, title in (("cpu", "CPU"), ("cuda", f"GPU: {about['gpu']}")):
        rows = result.get(device)
        lines += ["", f"## {title if rows else 'GPU'}", ""]
        lines += table(rows) if isinstance(rows, list) else ["no GPU"]
    return "\n".join(lines) + "\n"


def table(rows: Iterable[dict[str, object]]) -> list[str]:
    """One line for each case."""
    lines = ["| first : second | size | runs | first | second | ratio | target |", "|---|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        times = (
            f"{middle:.3g} ({low:.3g} to {high:.3g})" for low, middle, high in (row["ours_ms"], row["theirs_ms"])
        )  # fmt: skip
        target = "" if row["target"] is None else f"{row['target']:.3f}"
        lines.append(
            f"| {row['what']} | {row['size']} | {row['runs']} | {' | '.join(times)} | {row['ratio']:.3f} | {target} |"
        )
    return lines


if __name__ == "__main__":
    main()
