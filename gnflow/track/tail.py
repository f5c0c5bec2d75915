"""Read a growing `journal.jsonl`, each time from where the last reading ended."""

import json
from pathlib import Path
from typing import NamedTuple

from gnflow.train.journal import JOURNAL, Step

CHUNK = 1 << 20  # number of bytes that are read at once


class Chunk(NamedTuple):
    """The records that were read, and the position at which the next reading begins."""

    steps: list[Step]
    position: int


def read_span(directory: Path) -> tuple[float, float]:
    """Return when the first and the last complete record were written (in Unix seconds)."""
    with (directory / JOURNAL).open("rb") as file:
        first = file.readline()
        file.seek(max(0, (directory / JOURNAL).stat().st_size - CHUNK))
        lines = file.read().split(b"\n")[:-1]
    times = [float(json.loads(line)["time"]) for line in (first, lines[-1])]
    return times[0], times[1]


def read(directory: Path, position: int) -> Chunk:
    """Read the complete lines after `position` (in bytes), at most about a megabyte. An incomplete last line is left.

    If the position is not at the end of a line, the file is another one, and reading starts at its beginning.
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
    return Chunk(_parse_steps(data), position + len(data))


def _parse_steps(data: bytes) -> list[Step]:
    # If a step was computed again with another result, it has a second record, and the last one counts.
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
