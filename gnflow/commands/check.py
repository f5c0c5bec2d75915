"""`gnflow check`: validate specs and studies, and list what is missing here for their runs."""

import json as encoder
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gnflow.commands.lacking import find_missing
from gnflow.spec.load import load
from gnflow.spec.problems import Problem, SpecProblems, shorten_path
from gnflow.spec.recognition import A_STUDY, recognize
from gnflow.spec.tree import Origin, Source


class CheckResult(NamedTuple):
    """The problems of a file, and a sentence for each thing that its runs would lack on this machine."""

    problems: Sequence[Problem] = ()
    lacks: Sequence[str] = ()

    def to_json(self, spec: Path) -> dict[str, object]:
        """Return the JSON entry of one spec; `lacks` is left out if it is empty."""
        problems = [problem.to_json() for problem in self.problems]
        return {"spec": shorten_path(spec), "ok": not problems, "problems": problems} | (
            {"lacks": list(self.lacks)} if self.lacks else {}
        )


def check(specs: Sequence[Path], *, sets: Sequence[str] = (), json: bool) -> int:
    """Print every problem of every file once. Return 3 if there is one, else 0, even if a run lacks something."""
    found = {spec: _check(spec, sets) for spec in specs}
    bad = any(checked.problems for checked in found.values())
    if json:
        files = [checked.to_json(spec) for spec, checked in found.items()]
        print(encoder.dumps({"ok": not bad, "specs": files}, indent=2, ensure_ascii=False))
    else:
        for text in dict.fromkeys(str(problem) for checked in found.values() for problem in checked.problems):
            print(text, end="\n\n")
        for spec, checked in found.items():
            print(f"{shorten_path(spec)}: {_count_problems(checked.problems)}")
            for sentence in checked.lacks:
                print(f"  missing for a run: {sentence}")
    return SpecProblems.exit_code if bad else 0


def _check(path: Path, sets: Sequence[str]) -> CheckResult:
    try:
        loaded = load(path, sets)
    except SpecProblems as invalid:
        other = recognize(path)
        return _check_study(path, sets) if other and other.what == A_STUDY else CheckResult(invalid.problems)
    return CheckResult(lacks=find_missing(loaded.experiment, loaded.workspace))


def _check_study(path: Path, sets: Sequence[str]) -> CheckResult:
    from gnflow.study.design.load import load as load_study

    if sets:
        origin = Origin(Source(shorten_path(path)))
        return CheckResult([Problem(origin, "this is a study; `--set` changes a spec, and a study has the key `set`")])
    try:
        design = load_study(path)
    except SpecProblems as invalid:
        return CheckResult(invalid.problems)
    experiments = [arm.jobs[0].experiment for arm in design.arms]
    lacks = dict.fromkeys(sentence for each in experiments for sentence in find_missing(each, design.workspace))
    return CheckResult(lacks=list(lacks))


def _count_problems(problems: Sequence[Problem]) -> str:
    if not problems:
        return "ok"
    return "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
