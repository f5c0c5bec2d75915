"""Sheets of samples in run directories: when, of what, and the same bytes whatever happened in between."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import gallery
import multimodal
import numpy as np
import polars
import pytest
from acting import Crash, at
from multimodal import KINDS
from PIL import Image

from gnflow.data.multimodal import digits
from gnflow.spec.experiment import Experiment
from gnflow.train.loop import run
from gnflow.train.run import Run
from gnflow.workspace import Workspace

WEIGHTS = "model/params.safetensors"
LOSS = {"kind": "loss", "microbatches": 1}
FIGURES = {"samples/recognised", "samples/captioned", "samples/classifier_accuracy"}
DIGITS = {"source": {"kind": "digits", "captions": 1}}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One project, so that data is prepared once."""
    return Workspace(tmp_path_factory.mktemp("project"))


def experiment(
    kind: str = "emu3", metrics: object = (), data: Mapping[str, object] = DIGITS, **training: object
) -> Experiment:
    codes = {"kind": "vq", "codebook": 8}
    data = {"kind": "multimodal", "style": kind, "image_tokenizer": codes, **data}
    return multimodal.experiment(
        kind, {"kind": "adamw"}, data=data, metrics=metrics, training={"checkpoint_every": 2, **training}
    )


def sampled(kind: str = "emu3", every: int | None = None, **training: object) -> Experiment:
    return experiment(kind, [LOSS, {"kind": "samples", "captions": 5, "every": every}], **training)


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "samples").iterdir()}


def steps(done: Run) -> list[int]:
    assert set(done.metrics.columns) >= FIGURES
    found = done.metrics.filter(polars.all_horizontal(polars.col(*FIGURES).is_not_null()))["step"].to_list()
    assert set(files(done.directory)) == {f"step_{step:08d}.{suffix}" for step in found for suffix in ("png", "json")}
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_ends_with_the_same_sheets_and_none_touch_the_training(
    kind: str, workspace: Workspace, tmp_path: Path
) -> None:
    whole = run(sampled(kind, every=3), workspace, tmp_path / "whole")
    with pytest.raises(Crash):
        run(sampled(kind, every=3), workspace, tmp_path / "again", watches=[at(3)])
    there = files(tmp_path / "again")
    assert max(there) == "step_00000003.png"  # recorded, so it has a sheet; its checkpoint is that of step 2
    run(sampled(kind, every=3), workspace, tmp_path / "again")
    assert files(tmp_path / "again") == files(tmp_path / "whole")
    assert there.items() <= files(tmp_path / "whole").items()
    assert steps(whole) == [0, 3, 4]
    run(experiment(kind, [LOSS]), workspace, tmp_path / "without")
    assert (tmp_path / "without" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()
    assert not (tmp_path / "without" / "samples").exists()


@pytest.mark.parametrize(
    ("every", "expected"), [(None, [5]), (2, [0, 4, 5])], ids=["at the end", "every other evaluation"]
)
def test_a_sheet_is_made_when_it_is_due(
    every: int | None, expected: list[int], workspace: Workspace, tmp_path: Path
) -> None:
    assert steps(run(sampled(every=every, steps=5, evaluate_every=2), workspace, tmp_path / "run")) == expected


def test_a_run_that_reaches_its_target_early_has_its_sheet_there(workspace: Workspace, tmp_path: Path) -> None:
    assert steps(run(sampled(target={"at_most": 100.0}), workspace, tmp_path / "run")) == [0]


def test_a_run_without_a_loss_has_sheets(workspace: Workspace, tmp_path: Path) -> None:
    done = run(experiment(metrics=[{"kind": "samples", "captions": 2}]), workspace, tmp_path / "run")
    assert steps(done) == [4]


def test_a_sheet_shows_held_out_images_over_what_was_drawn(workspace: Workspace, tmp_path: Path) -> None:
    done = run(sampled(), workspace, tmp_path / "run")
    about = json.loads((done.directory / "samples" / "step_00000004.json").read_text())
    assert (about["step"], about["guidance"], about["temperature"], len(about["samples"])) == (4, 3.0, 1.0, 5)
    last = done.metrics.row(-1, named=True)
    assert about["figures"] == {name: last[name] for name in FIGURES}
    assert 0.7 < last["samples/classifier_accuracy"] < 1  # of images in eight codes
    assert all(
        0 <= 5 * last[name] == round(5 * last[name]) <= 5 for name in ("samples/recognised", "samples/captioned")
    )
    picture = np.asarray(Image.open(io.BytesIO((done.directory / "samples" / "step_00000004.png").read_bytes())))
    assert picture.shape == (8 * (2 * 8 + 2), 5 * 8 * 9)
    cells = picture[::8, ::8].reshape(18, 5, 9)[:, :, :8]
    _, held_out = digits.read_labelled(done.experiment.data.source)
    for number, sample in enumerate(about["samples"]):
        above, below = cells[:8, number], cells[9:17, number]
        label = digits.find_label(sample["prompt"])
        candidates = held_out.images[held_out.labels == label][..., 0].astype(int)
        every = held_out.images[..., 0].astype(int)
        distance = np.square(candidates - above).sum((1, 2)).min()
        assert distance == np.square(every - above).sum((1, 2)).min()  # the image that it says it is, in eight codes
        assert len(np.unique(below)) > 1


def test_guidance_and_temperature_shape_what_is_drawn(workspace: Workspace, tmp_path: Path) -> None:
    pictures = set()
    for name, options in {"plain": {}, "strong": {"guidance": 40.0}, "likeliest": {"temperature": 0.0}}.items():
        metric = {"kind": "samples", "captions": 5, **options}
        done = run(experiment(metrics=[metric], start={"kind": "warmup", "steps": 5}), workspace, tmp_path / name)
        pictures.add((done.directory / "samples" / "step_00000004.png").read_bytes())
    assert len(pictures) == 3


def test_sheets_move_and_go_with_the_run_that_they_are_of(workspace: Workspace, tmp_path: Path) -> None:
    done = run(sampled(steps=2), workspace, tmp_path / "run")
    before = files(done.directory)
    run(sampled(steps=1), workspace, tmp_path / "run", supersede=True)
    (aside,) = (tmp_path / ".superseded").iterdir()
    assert files(aside) == before
    assert set(files(done.directory)) == {"step_00000001.png", "step_00000001.json"}
    run(experiment(metrics=[LOSS], steps=1), workspace, tmp_path / "run", fresh=True)
    assert not (done.directory / "samples").exists()


def test_images_without_labels_have_a_sheet_and_no_figures(tmp_path: Path) -> None:
    gallery.photographs(tmp_path / "photographs.parquet", 40)
    source = {"kind": "files", "paths": ["photographs.parquet"], "height": 4, "width": 4, "held_out_fraction": 0.2}
    metrics = [{"kind": "samples", "captions": 100}]
    done = run(experiment(metrics=metrics, data={"source": source, "tokenizer": "bytes"}), Workspace(tmp_path))
    assert not FIGURES & set(done.metrics.columns)
    about = json.loads((done.directory / "samples" / "step_00000004.json").read_text())
    assert about["figures"] == {}
    assert {sample["prompt"] for sample in about["samples"]} <= {f"photograph {n}" for n in range(32, 40)}
    with Image.open(done.directory / "samples" / "step_00000004.png") as picture:
        assert (picture.mode, picture.width) == ("RGB", len(about["samples"]) * 16 * 5)
