import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from run_directories import append, steps

from gnflow.track import tail
from gnflow.train.journal import JOURNAL


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    append(tmp_path, steps([5.0, 4.0]))
    first = tail.read(tmp_path, 0)
    append(tmp_path, steps([5.0, 4.0, 3.0])[2:])
    second = tail.read(tmp_path, first.position)
    assert [record.step for record in first.steps] == [0, 1]
    assert second.steps == steps([5.0, 4.0, 3.0])[2:]
    assert tail.read(tmp_path, second.position) == ([], second.position)


def test_no_journal_is_nothing_to_read(tmp_path: Path) -> None:
    assert tail.read(tmp_path, 0) == ([], 0)


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 3000), max_size=8))
def test_a_line_still_being_written_waits_for_its_rest(tmp_path_factory, cuts: list[int]) -> None:
    directory = tmp_path_factory.mktemp("run")
    records = steps([5.0, 4.5, 4.0, 3.5, 3.0])
    append(directory, records)
    whole = (directory / JOURNAL).read_bytes()
    position, found = 0, []
    for cut in [*sorted(cuts), len(whole)]:
        (directory / JOURNAL).write_bytes(whole[:cut])
        chunk = tail.read(directory, position)
        found += chunk.steps
        position = chunk.position
    assert found == records


def test_a_position_in_another_file_begins_anew(tmp_path: Path) -> None:
    append(tmp_path, steps([5.0, 4.0, 3.0]))
    length = tail.read(tmp_path, 0).position
    for position in (length - 5, length + 100):
        assert len(tail.read(tmp_path, position).steps) == 3


def test_the_last_record_of_a_step_holds(tmp_path: Path) -> None:
    append(tmp_path, [*steps([5.0, 4.0]), *steps([5.0, 4.25])[1:]])
    assert tail.read(tmp_path, 0).steps[1].values["loss/held_out"] == 4.25


def test_events_are_no_steps(tmp_path: Path) -> None:
    append(tmp_path, steps([5.0]))
    with (tmp_path / JOURNAL).open("a") as file:
        file.write(json.dumps({"kind": "event", "step": 0, "time": 1.0, "name": "resumed", "message": ""}) + "\n")
    assert len(tail.read(tmp_path, 0).steps) == 1
    assert tail.read_span(tmp_path) == (steps([5.0])[0].time, 1.0)


def test_a_long_journal_is_read_in_pieces(tmp_path: Path) -> None:
    records = steps([5.0] * 5000)
    append(tmp_path, records)
    position, pieces, found = 0, 0, []
    while (chunk := tail.read(tmp_path, position)).position != position:
        pieces += 1
        found += chunk.steps
        position = chunk.position
    assert pieces > 1
    assert found == records
