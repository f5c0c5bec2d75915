"""Two runs that differ by nothing but what a clock says."""

from pathlib import Path

import polars
from quadratic import computed

from gnflow.train.run import Run


def assert_equal_but_for_clocks(directory: Path, untouched: Path) -> None:
    """Files, parameters, optimizer, journal, table and summary are the same, bit for bit."""
    names = [path.relative_to(untouched) for path in untouched.rglob("*") if path.is_file()]
    assert sorted(names) == sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    clocks = {"journal.jsonl", "metrics.parquet", "summary.json", "provenance.json", ".lock"}
    for name in names:
        if str(name) == "plan.json":
            assert Run.load(directory).plan == Run.load(untouched).plan
        elif str(name) not in clocks:
            assert (directory / name).read_bytes() == (untouched / name).read_bytes(), name
    steps = int(str(Run.load(untouched).summary["steps"]))
    assert (directory / "checkpoints" / f"step_{steps:08d}" / "optimizer.safetensors").stat().st_size > 100
    assert computed(directory) == computed(untouched)
    ours, theirs = (polars.read_parquet(path / "metrics.parquet") for path in (directory, untouched))
    assert ours["step"].to_list() == list(range(steps + 1))
    assert ours.select(polars.exclude("^time/.*$")).equals(theirs.select(polars.exclude("^time/.*$")))
    for name in ("time/seconds", "time/wall"):
        assert ours[name].is_sorted()
    summaries = [Run.load(path).summary for path in (directory, untouched)]
    ours_summary, theirs_summary = (
        {
            name: value
            for name, value in summary.items()
            if "seconds" not in name and name != "run/id" and not name.startswith("time/")
        }
        for summary in summaries
    )
    assert ours_summary == theirs_summary
