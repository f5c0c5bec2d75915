"""`gnflow check`: is this a valid spec, and what will a run of it lack here?"""

import json as encoder
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gnflow.commands.lacking import lacking
from gnflow.spec.load import load
from gnflow.spec.problems import Problem, SpecProblems, shorten_path


class Checked(NamedTuple):
    """What is wrong with a spec, and what a run of it will lack on this machine."""

    problems: Sequence[Problem] = ()
    lacks: Sequence[str] = ()

    def to_json(self, spec: Path) -> dict[str, object]:
        """The entry of one spec; `lacks` only where there is something."""
        problems = [problem.to_json() for problem in self.problems]
        return {"spec": shorten_path(spec), "ok": not problems, "problems": problems} | (
            {"lacks": list(self.lacks)} if self.lacks else {}
        )


def check(specs: Sequence[Path], *, sets: Sequence[str] = (), json: bool) -> int:
    """Prints every problem of every spec, each once; 3 when there is one. What a run lacks leaves it at 0."""
    found = {spec: _checked(spec, sets) for spec in specs}
    bad = any(checked.problems for checked in found.values())
    if json:
        files = [checked.to_json(spec) for spec, checked in found.items()]
        print(encoder.dumps({"ok": not bad, "specs": files}, indent=2, ensure_ascii=False))
    else:
        for text in dict.fromkeys(str(problem) for checked in found.values() for problem in checked.problems):
            print(text, end="\n\n")
        for spec, checked in found.items():
            print(f"{shorten_path(spec)}: {_verdict(checked.problems)}")
            for sentence in checked.lacks:
                print(f"  a run needs what is not here: {sentence}")
    return SpecProblems.exit_code if bad else 0


def _checked(spec: Path, sets: Sequence[str]) -> Checked:
    try:
        loaded = load(spec, sets)
    except SpecProblems as invalid:
        return Checked(invalid.problems)
    return Checked(lacks=lacking(loaded.experiment, loaded.workspace))


def _verdict(problems: Sequence[Problem]) -> str:
    if not problems:
        return "ok"
    return "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
