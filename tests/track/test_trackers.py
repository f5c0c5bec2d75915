"""Trackers besides MLflow: fed and refilled from the journal, and never a reason for training to end."""

import json
import shutil
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
from mirroring import train
from run_directories import BEGAN, append, begin, end, experiment, finished, steps

from gnflow.commands.run import make_mirrors
from gnflow.commands.track import UnknownTracker, track
from gnflow.errors import EnvironmentProblem
from gnflow.spec.kinds import use_kinds_of
from gnflow.spec.load import load
from gnflow.spec.tracking import TensorBoard, Wandb
from gnflow.track.mirror import Mirror
from gnflow.track.opening import refill
from gnflow.train.journal import Step
from gnflow.train.loop import run as train_run
from gnflow.workspace import Workspace

LOSSES = [4.9, 4.5, 4.1, 3.8]


def read_scalars(directory: Path) -> dict[str, list[tuple[int, float, float]]]:
    """(step, value, time) of every value, as TensorBoard itself reads the files."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(directory / "tensorboard"))
    reader.Reload()
    return {
        key: [(point.step, point.value, point.wall_time) for point in reader.Scalars(key)]
        for key in reader.Tags()["scalars"]
    }


def expected(records: Sequence[Step]) -> dict[str, list[tuple[int, Any, Any]]]:
    """Event files have values of four bytes, and times of eight."""
    keys = dict.fromkeys(key for record in records for key in record.values)
    return {
        key: [
            (record.step, pytest.approx(record.values[key], rel=1e-6), record.time)
            for record in records
            if key in record.values
        ]
        for key in keys
    }


def test_event_files_have_every_value_with_its_time(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run, said = begin(tmp_path / "runs" / "full_gn", experiment()), list[str]()
    for part in (steps(LOSSES)[:2], steps(LOSSES)[2:]):  # a run that is interrupted, and goes on
        with Mirror(run, Workspace(tmp_path), TensorBoard(), report=said.append) as watching:
            train(watching, part)
    assert read_scalars(run) == expected(steps(LOSSES))
    assert said == []
    shutil.rmtree(run / "tensorboard")
    end(run, steps(LOSSES))
    assert refill(run, Workspace(tmp_path), TensorBoard()).place == f"in {run / 'tensorboard'}"
    assert read_scalars(run) == expected(steps(LOSSES))


def test_a_step_that_was_computed_again_replaces_the_first(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = finished(tmp_path / "runs" / "full_gn", experiment(), steps(LOSSES))
    others = steps([9.0, 8.0, 7.0, 6.0], began=BEGAN + 1000)[2:]
    tracker = refill(run, Workspace(tmp_path), TensorBoard())
    append(run, others)
    refill(run, Workspace(tmp_path), TensorBoard())
    assert tracker.position < (run / "journal.jsonl").stat().st_size
    assert read_scalars(run) == expected([*steps(LOSSES)[:2], *others])


def test_the_verb_serves_every_tracker(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(tmp_path)
    spec = experiment().model_copy(update={"tracking": TensorBoard()})
    own = finished(tmp_path / "runs" / "own", spec, steps(LOSSES))
    other = finished(tmp_path / "runs" / "other", experiment(), steps(LOSSES, began=BEGAN + 1))
    assert track([own]) == track([tmp_path / "runs"], to="tensorboard") == 0
    places = [f"{run} is in {run / 'tensorboard'}" for run in (own, own, other)]
    assert capsys.readouterr().out.splitlines() == places
    assert read_scalars(own) == expected(steps(LOSSES))
    with pytest.raises(UnknownTracker, match="no tracker `tensorbord`; did you mean `tensorboard`"):
        track([own], to="tensorbord")


BROKEN = """
from typing import Literal
from gnflow.plugin import Tracker, TrackerKind

class Broken(TrackerKind):
    factory = "my_trackers:open_broken"
    kind: Literal["broken"] = "broken"

class Silent(Tracker):
    def send(self, steps):
        raise RuntimeError("the board is full")

def open_broken(section, run):
    return Silent()
"""


def test_a_tracker_that_fails_ends_nothing_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gnflow.track.mirror.HURRIED_FLUSH", 0.5)
    root = tiny.write_project(tmp_path / "project")
    (root / "my_trackers.py").write_text(BROKEN)
    (root / "pyproject.toml").write_text('[tool.gnflow.trackers]\nbroken = "my_trackers:Broken"\n')
    (root / "tiny.yaml").write_text(json.dumps({**tiny.tiny(steps=2, start="scratch"), "tracking": "broken"}))
    loaded, said = load(root / "tiny.yaml"), list[str]()
    with use_kinds_of(loaded.workspace):
        watches = make_mirrors(loaded.experiment, loaded.workspace, said.append)
        done = train_run(loaded.experiment, loaded.workspace, watches=watches)
    assert done.summary["status"] == "complete"
    assert said[-1].startswith("The tracker `broken` does not have the whole run (the board is full); `gnflow track")
    with pytest.raises(EnvironmentProblem, match=r"The tracker `broken` did not accept .*: the board is full"):
        track([done.directory])


def read_offline(file: Path) -> Iterator[Any]:
    """The records of a .wandb file: a header of seven bytes, then the log format of LevelDB."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts = file.read_bytes(), 7, b""
    while place < len(content):
        if (room := 32768 - place % 32768) < 7:
            place += room
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def test_weights_and_biases_are_written_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = finished(tmp_path / "runs" / "full_gn", experiment(), steps(LOSSES))
    for _ in range(2):  # the second replaces the first
        refill(run, Workspace(tmp_path), Wandb(study="sizes"))
    [folder] = (run / "wandb").glob("offline-run-*")
    [file] = folder.glob("*.wandb")
    found, about = [], None
    for record in read_offline(file):
        if record.HasField("run"):
            about = record.run
        if record.HasField("history"):
            items = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            found.append((items["_step"], items["loss/held_out"], items["_timestamp"]))
    assert found == [(record.step, record.values["loss/held_out"], record.time) for record in steps(LOSSES)]
    assert about is not None
    assert (about.project, about.run_group, about.display_name) == ("gnflow", "sizes", "full_gn")
