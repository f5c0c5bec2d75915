"""Require that the processes of a run agree, and limit how long one may keep the others waiting."""

import hashlib
import os
import statistics
from collections import Counter
from collections.abc import Iterable
from itertools import islice, pairwise

import torch
from torch import Tensor

from gnflow import trees
from gnflow.compiler.program import State
from gnflow.crew import Crew
from gnflow.errors import EnvironmentProblem, GnflowError
from gnflow.optim.by_part import find_part
from gnflow.train.journal import Step

VARIABLE, LEAST, STEPS = "GNFLOW_WAIT_SECONDS", 300.0, 20
BEGINNING = 1800.0
"""Seconds that a process may take for what comes before the end of the first step, such as compilation."""


def require_same(crew: Crew, state: State) -> None:
    """Raise GnflowError if a process has other bits than the others in what all of them have.

    A part of the state that one process owns cannot be compared. An exchange gives all processes the same bits, so a
    difference comes from a faulty memory or from a kernel that adds in no fixed order. The cost is a copy of the
    state to the CPU and one SHA-256, about 1 s for each GB.
    """
    if crew.size == 1:
        return
    average = {} if state.average is None else state.average.params
    tensors = trees.name_tensors({"weights": state.params, "optimizer": state.optimizer, "average": average})
    found = crew.collect({name: compute_digest(t) for name, t in tensors.items() if find_part(name) is None})
    for name in found[0]:
        digests = [each[name] for each in found]
        ((common, times), *others) = Counter(digests).most_common()
        if others:
            odd = [str(rank) for rank, each in enumerate(digests) if each != common]
            who = f"process {', '.join(odd)} has" if times > 1 else "the processes have"
            raise GnflowError(
                f"step {state.step}: {who} other bits than the others in `{name}`; no checkpoint was written. "
                "The usual causes are a faulty memory or processor, or two kinds of devices in one run"
            )


def compute_digest(tensor: Tensor) -> str:
    """Return the SHA-256 of the bytes of a tensor, in the order of its entries."""
    return hashlib.sha256(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data).hexdigest()


def find_patience(steps: Iterable[Step]) -> float:
    """Return how many seconds a process may keep the others waiting: 20 steps, and at least 300 s.

    Raises EnvironmentProblem if GNFLOW_WAIT_SECONDS, which replaces the 300 s, is no number.
    """
    text = os.environ.get(VARIABLE, str(LEAST))
    try:
        least = float(text)
    except ValueError:
        raise EnvironmentProblem(f"{VARIABLE}={text}: expected a number of seconds") from None
    clocks = [step.values.get("time/seconds", 0.0) for step in islice(reversed(list(steps)), 10)]
    taken = [after - before for after, before in pairwise(clocks)]
    return max(least, STEPS * statistics.median(taken) if taken else 0.0)
