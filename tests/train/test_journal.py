import json
from pathlib import Path

import pytest
from full_disk import no_file_beyond

from gnflow.errors import DiskProblem
from gnflow.train.journal import Event, Journal, Step, compute_identity, read, read_first_line


def step(number: int, **values: float) -> Step:
    return Step(number, 1795000000.25 + number, {name.replace("__", "/"): value for name, value in values.items()})


def written(path: Path, *records: Step | Event) -> None:
    journal = Journal(path)
    journal.record(*records)
    journal.close()


def test_what_is_recorded_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    records = [
        step(0, loss__held_out=4.610000133514404),
        Event(0, 1.5, "refused", "no trial\nhelped"),
        step(1, a=1e-300),
    ]
    written(tmp_path / "j", *records)
    assert read(tmp_path / "j").records == records


def test_every_record_is_on_disk_before_the_call_returns(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    for number in range(3):
        journal.record(step(number))
        assert len(read(tmp_path / "j").records) == number + 1
    journal.close()


def test_a_run_is_known_by_its_first_line_as_long_as_it_lives(tmp_path: Path) -> None:
    assert read_first_line(tmp_path / "j") is None
    written(tmp_path / "j", step(0, loss__held_out=4.0))
    line = read_first_line(tmp_path / "j")
    assert line is not None
    (tmp_path / "torn").write_bytes(line[:-1])
    assert read_first_line(tmp_path / "torn") is None
    written(tmp_path / "j", step(1, loss__held_out=3.0))
    assert read_first_line(tmp_path / "j") == line
    assert compute_identity(line) != compute_identity(line.replace(b"4.0", b"4.1"))


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_last_line_is_dropped_and_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "j"
    written(path, step(0, loss=1.0), step(1, loss=0.5))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert list(read(path).steps) == [0]
    written(path, step(1, loss=0.5))
    assert path.read_bytes() == whole


def test_a_tail_of_zeros_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path, step(0, loss=1.0))
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" * 100 + b"\n" + b"\0" * 30)
    Journal(path).close()
    assert path.read_bytes() == whole


def test_a_damaged_line_in_the_middle_is_named_and_its_step_can_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path, *(step(number, loss=1.0) for number in range(4)))
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b'"step": 2', b'"st\xff": 2')
    path.write_bytes(b"\n".join(lines))
    journal = Journal(path)
    assert journal.damaged == [3]
    assert journal.reaches(1)
    assert not journal.reaches(3)
    assert journal.record(step(2, loss=1.0)) == [step(2, loss=1.0)]
    assert journal.reaches(3)
    journal.close()
    assert list(read(path).steps) == [0, 1, 2, 3]


def test_a_recomputed_step_is_not_written_again_whatever_its_timings(tmp_path: Path) -> None:
    written(tmp_path / "j", step(0, loss=1.0, time__seconds=1.0))
    before = (tmp_path / "j").read_bytes()
    journal = Journal(tmp_path / "j")
    assert journal.record(Step(0, 9.0, {"loss": 1.0, "time/seconds": 7.0, "time/wall": 8.0})) == []
    assert journal.steps[0].values["time/seconds"] == 1.0
    journal.close()
    assert (tmp_path / "j").read_bytes() == before


def test_a_recomputation_that_differs_wins_and_is_reported_once(tmp_path: Path) -> None:
    written(tmp_path / "j", step(0, loss=1.0), step(1, loss=0.5))
    journal = Journal(tmp_path / "j")
    news = journal.record(step(0, loss=1.25))
    assert [type(record) for record in news] == [Step, Event]
    assert "loss 1.0 -> 1.25" in news[1].message
    assert journal.record(step(1, loss=0.75)) == [step(1, loss=0.75)]
    journal.close()
    assert [record.values["loss"] for record in read(tmp_path / "j").steps.values()] == [1.25, 0.75]


@pytest.mark.parametrize("missing", [{"loss": 1.0}, {"loss": 1.0, "norm/update": 1.0, "gn/alpha": 0.5}])
def test_a_value_that_appears_or_disappears_is_a_difference(tmp_path: Path, missing: dict[str, float]) -> None:
    written(tmp_path / "j", step(0, loss=1.0, norm__update=1.0))
    journal = Journal(tmp_path / "j")
    assert len(journal.record(Step(0, 1.0, missing))) == 2
    journal.close()


def test_the_same_event_is_written_once_across_sessions(tmp_path: Path) -> None:
    for time in (1.0, 2.0):
        written(tmp_path / "j", Event(3, time, "refused", "stays"))
    written(tmp_path / "j", Event(4, 3.0, "refused", "stays"))
    assert [(event.step, event.time) for event in read(tmp_path / "j").events] == [(3, 1.0), (4, 3.0)]


def test_every_line_is_plain_json(tmp_path: Path) -> None:
    written(tmp_path / "j", step(0, loss=1.0), Event(0, 1.0, "refused", "é"))
    lines = [json.loads(line) for line in (tmp_path / "j").read_text().splitlines()]
    assert lines[0] == {"kind": "step", "step": 0, "time": 1795000000.25, "values": {"loss": 1.0}}
    assert lines[1] == {"kind": "event", "step": 0, "time": 1.0, "name": "refused", "message": "é"}


def test_a_number_that_json_does_not_have_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    with pytest.raises(ValueError, match="JSON"):
        journal.record(step(0, loss=1.0), step(1, loss=float("nan")))
    journal.close()
    assert read(tmp_path / "j").records == []


def test_a_full_disk_leaves_whole_lines_and_the_journal_can_go_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.record(step(0, loss=1.0))
    size = (tmp_path / "j").stat().st_size
    with no_file_beyond(size + 20), pytest.raises(DiskProblem, match=r"j cannot be written: File too large"):
        journal.record(step(1, loss=0.5))
    assert (tmp_path / "j").stat().st_size == size
    journal.record(step(1, loss=0.5))
    journal.close()
    assert read(tmp_path / "j").records == [step(0, loss=1.0), step(1, loss=0.5)]
