"""Runs a spec on a small disk that has less and less room, then makes room and runs it to its end.

    python full_disks.py SPEC DISK OUT KIBIBYTES ...

Prints, for each room in KiB, exit code, steps of the good checkpoints and message of the run that had it; the directory
of the run that then went on is in OUT/KIBIBYTES, and OUT/untouched is that of one which always had room.
"""

import json
import shutil
import sys
from pathlib import Path

from forks import begun, ended

from gnflow.commands.run import run
from gnflow.errors import GnflowError


def forked(spec: Path, directory: Path, said: Path) -> int:
    """Exit code of a run in a process of its own."""

    def work() -> int:
        try:
            return run(spec, run_dir=directory)
        except GnflowError as error:
            said.write_text(str(error))
            return error.exit_code

    return ended(begun(work))


def main(spec: Path, disk: Path, out: Path, *rooms: str) -> None:
    import gnflow.train.display
    import gnflow.train.loop  # noqa: F401
    from gnflow.train import checkpoint

    out.mkdir()
    directory, ballast, said = disk / "run", disk / "ballast", out / "said"
    assert forked(spec, out / "untouched", said) == 0
    for room in rooms:
        said.write_text("")
        ballast.write_bytes(bytes(max(shutil.disk_usage(disk).free - 1024 * int(room), 0)))
        code = forked(spec, directory, said)
        good = [
            path for path in checkpoint.list_checkpoints(directory / "checkpoints") if not checkpoint.find_damage(path)
        ]
        assert sorted((directory / "checkpoints").glob("*")) == good, "rubbish"
        print(json.dumps([int(room), code, [checkpoint.read_step(path) for path in good], said.read_text()]))
        ballast.unlink()
        assert forked(spec, directory, said) == 0
        shutil.copytree(directory, out / room)
        shutil.rmtree(directory)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *sys.argv[4:])
