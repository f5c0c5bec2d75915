import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gnflow.train import clock
from gnflow.train.clock import Clock


@contextmanager
def busy_elsewhere() -> Iterator[None]:
    """Another process that works as hard as it can."""
    with subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=-1) as other:
        assert other.stdout is not None
        other.stdout.readline()
        try:
            yield
        finally:
            other.kill()


def test_what_another_process_takes_is_told_apart_from_what_this_one_takes() -> None:
    with busy_elsewhere():
        running = Clock(0.0)
        time.sleep(1.0)
        taken = running.measure(0.0)
    assert taken.seconds == pytest.approx(1.0, abs=0.3)
    assert taken.cpu < 0.3
    assert taken.others is not None
    assert taken.others > 0.25

    running = Clock(0.0)
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    assert running.measure(0.0).cpu >= 0.3


def test_compilation_is_no_part_of_the_seconds_and_nothing_is_said_of_others_then() -> None:
    running = Clock(2.0)
    time.sleep(0.2)
    taken = running.measure(2.1)
    assert taken.seconds == pytest.approx(0.1, abs=0.09)
    assert taken.others is None


@pytest.mark.parametrize("content", [None, "", "cpu  0 0 0 0 0 0 0 0 0 0\n", "intr 5\n"])
def test_where_the_machine_does_not_tell_nothing_is_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "stat").write_text(content)
    monkeypatch.setattr(clock, "STAT", tmp_path / "stat")
    assert Clock(0.0).measure(0.0).others is None


def test_waiting_for_a_disk_is_not_work_and_being_kept_waiting_by_the_host_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "STAT", tmp_path / "stat")
    clock.STAT.write_text("cpu  100 0 100 5000 700 0 0 100 0 0\ncpu0 1\n")
    running = Clock(0.0)
    clock.STAT.write_text("cpu  100 0 100 6000 900 0 0 400 0 0\ncpu0 1\n")
    others = running.measure(0.0).others
    assert others is not None
    assert others == pytest.approx(300 / clock.os.sysconf("SC_CLK_TCK"), abs=0.05)
