"""Run directories as a finished, interrupted or running `gnflow run` leaves them, written by hand."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from gnflow.spec.experiment import Experiment
from gnflow.train.journal import Step

BEGAN = 1795000000.25  # Unix seconds
TOKENS = 131_072  # of one step


def experiment(optimizer: object = "gauss_newton", **training: object) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "full_gn",
            "data": {"kind": "text", "context": 64},
            "optimizer": optimizer,
            "training": {"steps": 12, "target": {"at_most": 3.4}} | training,
        }
    )


def steps(
    losses: Sequence[float],
    *,
    began: float = BEGAN,
    passes: int = 65,
    searched: int = 16_384,
    flops: float = 1.5e12,
    seconds: float = 12.5,
    others: float | None = 0.0,
) -> list[Step]:
    """One record a step, the first being step 0; costs are cumulative. None for `others`: a run that did not look."""
    return [
        Step(
            step,
            began + seconds * step,
            {
                "loss/held_out": loss,
                "tokens/solve": TOKENS * step,
                "tokens/search": searched * step,
                "tokens/total": (TOKENS + searched) * step,
                "passes/serial": passes * step,
                "flops/total": flops * step,
                "time/seconds": seconds * step,
            }
            | ({} if others is None else {"time/cpu": seconds * step, "time/others": others * step})
            | ({"loss/train": loss + 0.01, "norm/update": 0.3} if step else {}),
        )
        for step, loss in enumerate(losses)
    ]


def append(directory: Path, records: Sequence[Step]) -> None:
    """To the journal, as the run does: whole lines at once."""
    lines = [
        json.dumps({"kind": "step", "step": record.step, "time": record.time, "values": dict(record.values)}) + "\n"
        for record in records
    ]
    with (directory / "journal.jsonl").open("a") as file:
        file.write("".join(lines))


def begin(directory: Path, spec: Experiment, plan: Mapping[str, object] | None = None) -> Path:
    """What a run writes before its first step."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "experiment.yaml").write_text(json.dumps(spec.model_dump(mode="json"), indent=2))
    (directory / "plan.json").write_text(json.dumps({"device": "cpu", **(plan or {})}))
    (directory / "provenance.json").write_text(json.dumps(PROVENANCE))
    return directory


def end(directory: Path, records: Sequence[Step], status: str = "complete") -> Path:
    """What a run writes after its last step."""
    last = records[-1]
    summary = {"status": status, "steps": last.step, **last.values, "time/wall": last.time - records[0].time}
    (directory / "summary.json").write_text(json.dumps(summary))
    return directory


def finished(directory: Path, spec: Experiment, records: Sequence[Step], **plan: object) -> Path:
    """A whole run."""
    append(begin(directory, spec, plan), records)
    return end(directory, records)


PROVENANCE = {
    "git": {"commit": "34d9879aa", "dirty": True},
    "digests": {"spec": "5" * 64, "data": "d" * 64},
    "sessions": [{"available": 4}],
}
