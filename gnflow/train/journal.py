"""The journal of a run: append-only, one JSON object per line, written to disk before any observer is told.

A run that was killed recomputes the steps since its last checkpoint. They are compared with the journal and not written
again: on one machine the recomputation is bit-identical, so a reader never sees a step twice. If it is not identical
(another machine, a GPU kernel without a fixed order), the new record is appended and replaces the old one.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from gnflow import faults
from gnflow.errors import DiskProblem
from gnflow.records import Step as Step
from gnflow.train import disk

JOURNAL = "journal.jsonl"  # name in the run directory
OTHERS = "time/others"  # CPU seconds of all other processes during steps; recorded if the machine reports them
DEVICE_SECONDS = "time/device_seconds"  # seconds times devices; recorded once the run was on several devices
TIMINGS = "time/"  # prefixes of values that differ when a step is computed again


@dataclass(frozen=True)
class Event:
    """An event that readers of the run should know, in words."""

    step: int
    time: float
    name: str
    message: str


Record: TypeAlias = Step | Event


class Reading(NamedTuple):
    """The content of a journal file."""

    records: list[Record]
    damaged: list[int]
    """Numbers (from 1) of lines that cannot be read although good lines follow."""
    length: int
    """Number of bytes up to the end of the last good line. A crash cut off everything after it."""

    @property
    def steps(self) -> dict[int, Step]:
        """The last record of each step, in the order of steps."""
        latest = {record.step: record for record in self.records if isinstance(record, Step)}
        return dict(sorted(latest.items()))

    @property
    def last(self) -> Step:
        """The last step, with the last value of every column; step 0 without values if there is none."""
        last = Step(0, 0.0, {})
        for step in self.steps.values():
            last = Step(step.step, step.time, {**last.values, **step.values})
        return last

    @property
    def events(self) -> list[Event]:
        """Every event, in the order written."""
        return [record for record in self.records if isinstance(record, Event)]


def read(path: Path) -> Reading:
    """Read all good lines, during a run or after it was killed. A missing file is an empty journal.

    Raises DiskProblem for a file that is there and cannot be read.
    """
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise DiskProblem(f"{path} cannot be read: {error.strerror}") from error
    records: list[Record] = []
    damaged: list[int] = []
    bad: list[int] = []
    position = length = 0
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        position += len(line) + 1
        record = _parse(line)
        if record is None:
            bad.append(number)
            continue
        records.append(record)
        damaged += bad
        bad, length = [], position
    return Reading(records, damaged, length)


def read_last_step(path: Path, size: int = 16384) -> Step | None:
    """Return the last step in the last `size` bytes of a journal; None if there is none, or the file cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return None
    return next((record for line in reversed(lines) if isinstance(record := _parse(line), Step)), None)


def read_first_line(path: Path) -> bytes | None:
    """Return the first complete line; None while there is none."""
    try:
        with path.open("rb") as file:
            line = file.readline()
    except FileNotFoundError:
        return None
    return line if line.endswith(b"\n") else None


def compute_identity(line: bytes) -> str:
    """Return the identity of a run, whatever its directory is called: a digest of its first line."""
    return hashlib.sha256(line).hexdigest()[:32]


class Journal:
    """A journal that one process has opened for appending. A last line that a crash cut short is removed.

    If it does not write, it keeps the same records in memory: other processes of a run follow it in this way.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        """Open the journal. Raises DiskProblem."""
        self.path, self._writes = path, writes
        reading = read(path)
        self.damaged = reading.damaged
        self.steps = reading.steps
        self.last = next((record for record in reversed(reading.records) if isinstance(record, Step)), None)
        """The step that was written last, which need not have the largest number."""
        self._events = {(event.step, event.name, event.message) for event in reading.events}
        self._differed = False
        if not writes:
            return
        with disk.guard_write(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            os.ftruncate(self._descriptor, reading.length)
            self._length = reading.length
            disk.sync(path.parent)
        disk.anchor(path, self._descriptor)

    def record(self, *records: Record) -> list[Record]:
        """Write the records that the journal does not hold yet, all at once, and return them. Raises DiskProblem."""
        news: list[Record] = []
        for record in records:
            news += self._select_new(record)
        self._append("".join(_format_line(record) for record in news).encode())
        for record in news:
            match record:
                case Step():
                    self.steps[record.step] = self.last = record
                case Event():
                    self._events.add((record.step, record.name, record.message))
        return news

    def find_steps_with(self, *names: str) -> set[int]:
        """Return the steps that have an event with one of these names."""
        return {step for step, name, _ in self._events if name in names}

    def reaches(self, step: int) -> bool:
        """Return whether the journal holds every step up to this one."""
        return all(number in self.steps for number in range(step + 1))

    def sync(self) -> None:
        """Wait until everything is on the disk itself. Raises DiskProblem."""
        if not self._writes:
            return
        with disk.guard_write(self.path):
            os.fsync(self._descriptor)
        faults.pass_point("journal.after_sync")

    def close(self) -> None:
        """Sync and close the file."""
        if not self._writes:
            return
        disk.release(self.path)
        try:
            self.sync()
        finally:
            os.close(self._descriptor)

    def _select_new(self, record: Record) -> Sequence[Record]:
        match record:
            case Event():
                return [] if (record.step, record.name, record.message) in self._events else [record]
            case Step() if record.step not in self.steps:
                return [record]
            case Step():
                differences = _describe_differences(self.steps[record.step], record)
                if not differences:
                    return []
                first = not self._differed
                self._differed = True
                message = f"recomputed with another result: {differences}; readers take the last record of a step"
                return [record, Event(record.step, record.time, "recomputed", message)] if first else [record]

    def _append(self, content: bytes) -> None:
        if not self._writes:
            return
        with disk.guard_write(self.path):
            written = 0
            faults.pass_point("journal.before_write")
            faults.pass_point("journal.in_write", lambda: os.write(self._descriptor, content[: len(content) // 2]))
            try:
                while written < len(content):
                    written += os.write(self._descriptor, content[written:])
            except OSError:
                os.ftruncate(self._descriptor, self._length)
                raise
            self._length += written
        faults.pass_point("journal.after_write")


def _describe_differences(old: Step, new: Step) -> str:
    keys = [key for key in {**old.values, **new.values} if not key.startswith(TIMINGS)]
    changed = [key for key in keys if old.values.get(key) != new.values.get(key)]
    return ", ".join(f"{key} {old.values.get(key)} -> {new.values.get(key)}" for key in changed)


def _format_line(record: Record) -> str:
    match record:
        case Step(step=step, time=time, values=values):
            fields = {"kind": "step", "step": step, "time": time, "values": dict(values)}
        case Event(step=step, time=time, name=name, message=message):
            fields = {"kind": "event", "step": step, "time": time, "name": name, "message": message}
    return json.dumps(fields, allow_nan=False) + "\n"


def _parse(line: bytes) -> Record | None:
    try:
        match json.loads(line):
            case {"kind": "step", "step": int(step), "time": float(time) | int(time), "values": dict(values)}:
                return Step(step, time, values)
            case {"kind": "event", "step": int(step), "time": float(time) | int(time), "name": name, "message": text}:
                return Event(step, time, str(name), str(text))
    except ValueError:
        pass
    return None
