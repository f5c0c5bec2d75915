import re
from pathlib import Path

import pytest
from corpora import prose

from gnflow.commands.prepare import prepare
from gnflow.errors import DataError, SpecError

SPEC = """
name: trial
data:
  source: {kind: files, paths: [a.txt]}
  tokenizer: bytes
  context: 16
optimizer:
  kind: adamw
  learning_rate: 0.003
  microbatches: 1
training: {steps: 1}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_text("")
    (tmp_path / "specs").mkdir()
    (tmp_path / "a.txt").write_text(prose(2000))
    path = tmp_path / "specs" / "trial.yaml"
    path.write_text(SPEC)
    return path


def test_prepare_says_where_the_shards_are_and_what_they_hold(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare([spec], sets=[]) == 0
    first = capsys.readouterr().out.splitlines()
    (directory,) = (spec.parents[1] / "data").iterdir()
    assert first[0] == f"preparing {directory}"
    size = len((spec.parents[1] / "a.txt").read_text())
    held_out = round(size * 0.05)
    assert first[3:] == [
        str(directory),
        f"  train     {size - held_out + 1:>13,} tokens  {(size - held_out) // 16:>11,} rows of 16",
        f"  held out  {held_out + 1:>13,} tokens  {held_out // 16:>11,} rows of 16",
        f"  held-out text has {held_out / (held_out + 1):.3f} bytes a token",
        first[-1],
    ]
    assert prepare([spec], sets=[]) == 0
    assert capsys.readouterr().out.splitlines() == first[3:]


def test_what_is_set_on_the_command_line_counts(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare([spec], sets=["data.tokenizer.kind=bpe", "data.tokenizer.vocabulary=300"]) == 0
    assert "files-bpe-300-" in capsys.readouterr().out


def test_a_bad_spec_is_found_before_any_work(spec: Path) -> None:
    bad = spec.with_name("bad.yaml")
    bad.write_text(SPEC.replace("context: 16", "context: none"))
    with pytest.raises(SpecError):
        prepare([spec, bad], sets=[])
    assert not (spec.parents[1] / "data").exists()


def test_missing_data_has_its_own_exit_code(spec: Path) -> None:
    (spec.parents[1] / "a.txt").unlink()
    with pytest.raises(DataError, match=r"there is no file `a\.txt`") as caught:
        prepare([spec], sets=[])
    assert caught.value.exit_code == 4


MULTIMODAL = """
name: trial
model: {kind: janus}
data:
  kind: multimodal
  style: janus
  source: {kind: digits, captions: 1}
  image_tokenizer: {kind: vq, codebook: 32}
optimizer: adamw
training: {steps: 1}
"""


def test_prepare_says_how_well_images_come_back(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec.write_text(MULTIMODAL)
    assert prepare([spec], sets=[]) == 0
    (directory,) = (spec.parents[1] / "data").iterdir()
    lines = capsys.readouterr().out.splitlines()
    assert directory.name.startswith("digits-janus-vq-398-")
    assert lines[lines.index(str(directory)) + 1 :] == [
        "  train             1,438 samples       2,423 rows of 48 (text 223, understanding 1,100, generation 1,100), "
        "69% filled",
        lines[-3],
        lines[-2],
        lines[-1],
    ]
    assert re.fullmatch(r"  held out +359 samples +\d+ rows of 48 \(.*\), \d\d% filled", lines[-3])
    assert re.fullmatch(
        r"  359 held-out images come back with an error of 2\d\.\d of 255 \(root mean square\), in 32 of 32 codes",
        lines[-2],
    )


def test_the_problems_of_all_specs_are_told_at_once(spec: Path) -> None:
    first, second = spec.with_name("first.yaml"), spec.with_name("second.yaml")
    for bad in (first, second):
        bad.write_text(SPEC.replace("context: 16", "context: none"))
    with pytest.raises(SpecError) as told:
        prepare([first, spec, second], sets=[])
    assert "first.yaml:6" in str(told.value)
    assert "second.yaml:6" in str(told.value)
