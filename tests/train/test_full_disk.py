"""A run on a disk that fills up leaves its last good checkpoint, says so, and goes on when there is room."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from equal_runs import assert_equal_but_for_clocks
from ruamel.yaml import YAML

SCRIPT = Path(__file__).parents[1] / "full_disks.py"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real one, of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"a small disk takes `mount`: {error}")
    if done.returncode:
        pytest.skip(f"mounting a small disk is not permitted: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def outcomes(root: Path, disk: Path, rooms: list[int]) -> dict[int, tuple[int, list[int], str]]:
    """For each room in KiB, how the run ended that had it; all were equal to an untouched one in the end."""
    spec = tiny.write_project(root / "project") / "tiny.yaml"
    YAML().dump(tiny.tiny(), spec)
    done = subprocess.run(
        [sys.executable, SCRIPT, spec, disk, root / "out", *map(str, rooms)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for room in rooms:
        assert_equal_but_for_clocks(root / "out" / str(room), root / "out" / "untouched")
    return {room: (code, good, said) for room, code, good, said in map(json.loads, done.stdout.splitlines())}


def test_a_disk_that_fills_up_ends_a_run_that_goes_on_when_there_is_room(disk: Path, tmp_path: Path) -> None:
    found = outcomes(tmp_path, disk, [24, 360])
    assert {code for code, _, _ in found.values()} == {8}
    assert "a checkpoint needs" in found[24][2]
    assert "bytes" in found[24][2]
    assert found[360][1], "no good checkpoint was left"


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_a_disk_with_any_room_ends_a_run_that_goes_on_when_there_is_more(disk: Path, tmp_path: Path) -> None:
    found = outcomes(tmp_path, disk, [0, *range(4, 900, 64)])
    assert "No space left on device" in found[0][2]
    codes = [code for code, _, _ in found.values()]
    assert set(codes) == {0, 8}
    assert codes == sorted(codes, reverse=True)
    assert len({said.split(":")[0] for _, _, said in found.values()}) > 3, "it always ended at the same place"
