from pathlib import Path

import multimodal
import polars
import pytest
from acting import Crash, at
from multimodal import KINDS
from safetensors.torch import load_file

from gnflow.train.loop import run
from gnflow.workspace import Workspace

METRICS = [{"kind": "loss", "microbatches": 2}, "cost", {"kind": "modality_conflict", "microbatches": 1}]
WEIGHTS = "model/params.safetensors"


def experiment(kind: str, **training: object):
    optimizer = {"kind": "ml_fop_soap", "granularity": "modality", "microbatches": 2}
    return multimodal.experiment(kind, optimizer, metrics=METRICS, training={"checkpoint_every": 2, **training})


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_has_its_columns_and_resumes_bit_for_bit(kind: str, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    start = {"kind": "warmup", "steps": 2}
    whole = run(experiment(kind, start=start), workspace, tmp_path / "whole")
    with pytest.raises(Crash):
        run(experiment(kind, start=start), workspace, tmp_path / "again", watches=[at(3)])
    run(experiment(kind, start=start), workspace, tmp_path / "again")
    assert (tmp_path / "whole" / WEIGHTS).read_bytes() == (tmp_path / "again" / WEIGHTS).read_bytes()
    columns = set(whole.metrics.columns)
    assert columns >= {
        "loss/held_out", "loss/text", "loss/image", "loss/text_only", "loss/understanding", "loss/generation",
        "image_accuracy", "conflict/cosine", "conflict/norm_ratio", "conflict/cosine/blocks.0", "fop/beta_1",
    }  # fmt: skip
    assert whole.metrics.select(polars.col("tokens/total").max()).item() == 4 * 2 * 4 * 48


def test_stages_of_janus_go_on_from_each_other_and_leave_alone_what_is_frozen(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    first = multimodal.experiment("janus", {"kind": "adamw"}, name="first", metrics=METRICS)
    run(first, workspace)
    start = {"kind": "checkpoint", "path": "runs/first/model"}
    freeze = {"freeze": ["decoder", "text"]}
    second = multimodal.experiment("janus", {"kind": "soap"}, name="second", model=freeze, training={"start": start})
    run(second, workspace)
    before, after = (load_file(tmp_path / "runs" / name / WEIGHTS) for name in ("first", "second"))
    kept = {name for name in before if before[name].equal(after[name])}
    assert kept == {name for name in before if name.startswith(("blocks.", "norm.", "embedding.", "head."))}
