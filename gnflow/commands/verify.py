"""`gnflow verify`: check the derivatives and the optimizer of specs, on a small copy of each model."""

import json as encoder
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gnflow.compiler import toolchain
from gnflow.spec.experiment import Experiment
from gnflow.spec.load import load_all
from gnflow.spec.problems import shorten_path

FAILED = 1  # the exit code for faults of gnflow or a plug-in, as opposed to the spec or the machine


class Finding(NamedTuple):
    """The outcome of one check."""

    check: str
    ok: bool
    detail: str
    seconds: float


def verify(specs: Sequence[Path], *, sets: Sequence[str] = (), json: bool) -> int:
    """Print one line for each check. Return 1 if one fails, else 0.

    Raises SpecError for bad specs and for rules without effect. All specs are read and built before the first
    check. The JSON for several specs is a list with an entry for each file.
    """
    every = load_all(specs, sets)
    toolchain.settle(every[0].workspace)
    for loaded in every:
        _build(loaded.experiment)
    found = [_verify(loaded.experiment, aloud=not json) for loaded in every]
    told = [{"ok": all(f.ok for f in findings), "checks": [f._asdict() for f in findings]} for findings in found]
    ok = all(one["ok"] for one in told)
    if json:
        several = {
            "ok": ok,
            "specs": [{"spec": shorten_path(spec), **one} for spec, one in zip(specs, told, strict=True)],
        }
        print(encoder.dumps(told[0] if len(told) == 1 else several, indent=2))
    return 0 if ok else FAILED


def _build(experiment: Experiment) -> None:
    """Build the parts of a spec once, which raises an error if its rules do not fit the model."""
    from gnflow.optim.protocol import eager
    from gnflow.verify.subject import build_parts

    build_parts(experiment, eager)


def _verify(experiment: Experiment, *, aloud: bool) -> list[Finding]:
    # torch takes seconds to import, so bad specs are refused before.
    from gnflow.verify.subject import choose_device

    problem = toolchain.find_problem(choose_device(experiment).type)
    compiling = not problem and experiment.compile.mode != "off"
    found = []
    for finding in _run_checks(experiment, compiling):
        found.append(finding)
        if aloud:
            print(_format_finding(finding), flush=True)
    if aloud:
        failed = [finding for finding in found if not finding.ok]
        seconds = sum(finding.seconds for finding in found)
        verdict = f"{len(failed)} of {len(found)} checks failed" if failed else f"all {len(found)} checks hold"
        print(f"{experiment.name}: {verdict}, {seconds:.0f} s{_describe_omission(experiment, problem)}", flush=True)
    return found


def _run_checks(experiment: Experiment, compiling: bool) -> Iterator[Finding]:
    from gnflow.verify.checks import select_checks
    from gnflow.verify.subject import CheckFailed, shrink

    small = shrink(experiment)
    for claim, check in select_checks(small, compiling=compiling):
        start, detail = time.perf_counter(), ""
        try:
            check(small)
        except CheckFailed as failed:
            detail = str(failed)
        except RuntimeError as error:  # an error of torch; the other checks may still show its cause
            detail = f"stopped by {type(error).__name__}: {str(error).strip().splitlines()[0]}"
        yield Finding(claim, not detail, detail, time.perf_counter() - start)


def _format_finding(finding: Finding) -> str:
    return f"ok      {finding.check}" if finding.ok else f"failed  {finding.check}: {finding.detail}"


def _describe_omission(experiment: Experiment, problem: str | None) -> str:
    if experiment.compile.mode == "off":
        return "; nothing is compiled (compile.mode: off)"
    return f"; compiled regions not checked: {problem}" if problem else ""
