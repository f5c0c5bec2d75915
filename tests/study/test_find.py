from pathlib import Path

import pytest
from run_directories import experiment, finished, steps

from gnflow.errors import SpecError
from gnflow.study.find import find


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dvc.yaml").touch()
    for name in ("full_gn", "muon"):
        finished(tmp_path / "runs" / name, experiment(), steps([4.9]))
    (tmp_path / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "deeper")
    return tmp_path


def test_a_run_is_found_by_name_from_anywhere_in_the_project(project: Path) -> None:
    assert find(Path("muon")).directory == project / "runs" / "muon"


def test_a_run_is_found_by_directory(project: Path, tmp_path: Path) -> None:
    finished(tmp_path / "elsewhere", experiment(), steps([4.9]))
    assert find(tmp_path / "elsewhere").directory == tmp_path / "elsewhere"


def test_an_unknown_name_is_answered_with_the_nearest(project: Path) -> None:
    with pytest.raises(SpecError, match="no run `muno`; did you mean `muon`"):
        find(Path("muno"))
    with pytest.raises(SpecError, match="the runs here: full_gn, muon"):
        find(Path("something/else"))
