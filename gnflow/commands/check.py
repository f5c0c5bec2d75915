"""`gnflow check`: is this a valid spec?"""

import json as encoder
from collections.abc import Sequence
from pathlib import Path

from gnflow.spec.load import load
from gnflow.spec.problems import Problem, SpecProblems, shown


def check(specs: Sequence[Path], *, sets: Sequence[str] = (), json: bool) -> int:
    """Print every problem of every spec, each once. Returns 3 if there is one."""
    found = {spec: _problems(spec, sets) for spec in specs}
    if json:
        files = [
            {"spec": shown(spec), "ok": not problems, "problems": [problem.to_json() for problem in problems]}
            for spec, problems in found.items()
        ]
        print(encoder.dumps({"ok": not any(found.values()), "specs": files}, indent=2, ensure_ascii=False))
    else:
        for text in dict.fromkeys(str(problem) for problems in found.values() for problem in problems):
            print(text, end="\n\n")
        for spec, problems in found.items():
            print(f"{shown(spec)}: {_verdict(problems)}")
    return SpecProblems.exit_code if any(found.values()) else 0


def _problems(spec: Path, sets: Sequence[str]) -> Sequence[Problem]:
    try:
        load(spec, sets)
    except SpecProblems as invalid:
        return invalid.problems
    return ()


def _verdict(problems: Sequence[Problem]) -> str:
    if not problems:
        return "ok"
    return "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
