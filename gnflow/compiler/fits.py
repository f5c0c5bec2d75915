"""Compare a plan with the memory of this machine and say what would fit, before a byte is allocated.

The plan counts activations as if regions ran eagerly. Compiled regions fuse operations and need less, though hardly
ever less than half. So a plan that exceeds the memory even with half is refused, and for one that exceeds it only as
counted there is a warning.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from gnflow.compiler.plan import Plan
from gnflow.compiler.plan import plan as make_plan
from gnflow.errors import EnvironmentProblem, is_out_of_memory

FUSED = 0.5
"""Least part of the counted activations that a compiled run needs."""
USABLE = 0.9  # part of a memory; the rest goes to the process itself and to fragments
_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Room(NamedTuple):
    """A memory: the device that it belongs to, and its size in bytes."""

    place: str
    total: int
    free: int


class Fit(NamedTuple):
    """The result of comparing a plan with a memory. `least` is the smallest number of bytes that the plan may need."""

    verdict: Literal["fits", "may not fit", "does not fit"]
    needed: int
    least: int
    room: Room
    advice: str

    def __str__(self) -> str:
        there = (
            f"{self.room.place} has {format_gigabytes(self.room.total)}, {format_gigabytes(self.room.free)} of it free"
        )
        if self.verdict == "fits":
            return f"it fits: it needs about {format_gigabytes(self.needed)} of memory; {there}"
        about = "at least" if self.verdict == "does not fit" else "up to"
        size = self.least if self.verdict == "does not fit" else self.needed
        return f"it {self.verdict}: it needs {about} {format_gigabytes(size)} of memory; {there}. {self.advice}"


def compare_with_memory(plan: Plan, room: Room | None = None) -> Fit | None:
    """Compare the plan with a memory. Return None if the memory is not known, such as that of an absent GPU."""
    room = room or find_room(plan.device)
    if room is None:
        return None
    needed = sum(plan.memory.values())
    compiled = plan.experiment.compile.mode != "off"
    least = needed - round((1 - FUSED) * plan.memory["activations"]) if compiled else needed
    usable = USABLE * room.total
    verdict: Literal["fits", "may not fit", "does not fit"] = "fits"
    if least > usable:
        verdict = "does not fit"
    elif needed > min(usable, room.free):
        verdict = "may not fit"
    return Fit(verdict, needed, least, room, _advise(plan, usable) if verdict != "fits" else "")


def require_fit(plan: Plan) -> Fit | None:
    """Compare the plan with the memory of its device and raise EnvironmentProblem if it does not fit."""
    found = compare_with_memory(plan)
    if found is not None and found.verdict == "does not fit":
        raise EnvironmentProblem(f"{plan.experiment.name}: {found}")
    return found


@contextmanager
def explain_out_of_memory(plan: Plan) -> Iterator[None]:
    """Turn an out-of-memory error into one line with the plan's figures and advice."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        room = find_room(plan.device)
        needed = format_gigabytes(sum(plan.memory.values()))
        there = "" if room is None else f"; {room.place} has {format_gigabytes(room.total)}"
        usable = USABLE * room.total if room else 0.0
        raise EnvironmentProblem(
            f"{plan.experiment.name}: out of memory. The plan needs up to {needed}{there}. {_advise(plan, usable)}"
        ) from error


def find_room(device: str) -> Room | None:
    """Find the memory that a run on this device has."""
    if device == "cuda":
        if not torch.cuda.is_available():
            return None
        free, total = torch.cuda.mem_get_info()
        return Room(torch.cuda.get_device_name(), total, free)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    total, free = sizes["MemTotal"], sizes.get("MemAvailable", sizes["MemTotal"])
    limit = min((bytes_ for path in _CGROUPS if (bytes_ := _read_limit(Path(path)))), default=total)
    return Room("this machine", min(total, limit), min(free, limit))


def format_gigabytes(size: float) -> str:
    """Write a size like `1.5 GB`."""
    return f"{size / 1e9:,.1f} GB" if size < 1e11 else f"{size / 1e9:,.0f} GB"


def _read_limit(path: Path) -> int | None:
    """Read the limit of a control group. Return None if it has none."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _advise(plan: Plan, usable: float) -> str:
    """Say what to change so that the plan fits."""
    rows, batch = plan.experiment.training.rows, plan.memory["batch"]
    others = sum(plan.memory.values()) - plan.memory["activations"] - batch
    count = sum(prod(row.shape) for row in plan.parameters)
    if 0 < usable < (least := _estimate_bytes(plan, 1)):
        others = max(others, least)
        largest = _round_down(count * usable / others / 2)
        return (
            f"The weights, their gradients and the optimizer alone take {format_gigabytes(others)}. Choose a model of "
            f"at most about {largest:,} parameters in place of {count:,} (fewer `model.layers`, a smaller "
            "`model.width`), or a machine with more memory"
        )
    fitting = _count_fitting_rows(plan, usable)
    less = [f"`training.rows: {fitting}`"] if 1 <= fitting < rows else []
    less += [] if fitting >= 1 else ["a smaller `data.context` with `training.rows: 1`"]
    if not plan.recomputed and plan.experiment.compile.activations is None:
        allowed = f": {int((usable - others - batch) / 2**20):,}" if usable > others + batch else ""
        less.append(f"`compile.activations{allowed}`, which takes blocks of the model again in place of keeping them")
    return f"It would need less with {' or '.join(less) or 'fewer `training.rows`'} (more micro-batches keep the batch)"


def _count_fitting_rows(plan: Plan, usable: float) -> int:
    """Count the rows of a micro-batch that fit at most. The memory of a step grows linearly with them."""
    rows, needed = plan.experiment.training.rows, sum(plan.memory.values())
    fewer = max(rows // 2, 1)
    each = (needed - _estimate_bytes(plan, fewer)) / (rows - fewer) if rows > 1 else 0.0
    return int(rows - (needed - usable) / each) if each > 0 else rows


def _estimate_bytes(plan: Plan, rows: int) -> int:
    """Estimate the bytes of the same run with `rows` rows in a micro-batch."""
    training = plan.experiment.training.model_copy(update={"rows": rows})
    other = make_plan(plan.experiment.model_copy(update={"training": training}), plan.attention)
    return sum(other.memory.values())


def _round_down(number: float) -> int:
    """Round down to two digits."""
    digits = max(len(str(int(number))) - 2, 0)
    return int(number / 10.0**digits) * int(10.0**digits)
