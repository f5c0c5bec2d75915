"""Reading a growing `journal.jsonl` from where one left off."""

import json
from pathlib import Path
from typing import NamedTuple

from gnflow.train.journal import JOURNAL, Step

CHUNK = 1 << 20  # bytes read at once


class Chunk(NamedTuple):
    """What was read, and where the next reading begins."""

    steps: list[Step]
    position: int


def span(directory: Path) -> tuple[float, float]:
    """When the first and the last complete record were written (Unix seconds)."""
    with (directory / JOURNAL).open("rb") as file:
        first = file.readline()
        file.seek(max(0, (directory / JOURNAL).stat().st_size - CHUNK))
        lines = file.read().split(b"\n")[:-1]
    times = [float(json.loads(line)["time"]) for line in (first, lines[-1])]
    return times[0], times[1]


def read(directory: Path, position: int) -> Chunk:
    """The complete lines after `position` (bytes), at most about a megabyte. A torn last line waits for its rest.

    A position that is not the end of a line belongs to another file; reading then begins anew.
    """
    try:
        file = (directory / JOURNAL).open("rb")
    except FileNotFoundError:
        return Chunk([], 0)
    with file:
        if position:
            file.seek(position - 1)
            if file.read(1) != b"\n":
                position = 0
        file.seek(position)
        data = file.read(CHUNK)
        if b"\n" not in data:
            data += file.readline()
    data = data[: data.rfind(b"\n") + 1]
    return Chunk(_steps(data), position + len(data))


def _steps(data: bytes) -> list[Step]:
    # A step measured again, with another outcome, is a second record; the last one holds.
    steps: dict[int, Step] = {}
    for line in data.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("kind") == "step":
            step = int(record["step"])
            values = {key: float(value) for key, value in record["values"].items() if isinstance(value, int | float)}
            steps[step] = Step(step, float(record["time"]), values)
    return list(steps.values())
