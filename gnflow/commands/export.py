"""`gnflow export RUN DIR`: write the model of a run as a directory of transformers."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gnflow.errors import DataError, GnflowError, SpecError
from gnflow.spec.data import Text
from gnflow.spec.huggingface import HuggingFaceModel
from gnflow.study.find import find
from gnflow.train.run import Run
from gnflow.workspace import Workspace

COMPARED = 512  # tokens of a row, at most


class Refusal(GnflowError):
    """The directory cannot be written as it is named."""

    exit_code = 2


def export(run: Path, directory: Path, *, average: bool) -> int:
    """Write the final weights of a run, or their average, in the form of transformers, and print what was written.

    The directory appears when its logits have been compared with those of the run. Raises SpecError for a model that no
    class of transformers has, DataError for a run without such weights, and EnvironmentProblem if logits differ. Return
    0.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise Refusal(f"{directory} exists already; choose another directory")
    found = find(run)
    workspace = Workspace.find_for_run(found.directory)
    with _write_aside(directory) as partial:
        lines = _fill(partial, found, workspace, average)
    print(f"{directory}: loads with AutoModelForCausalLM.from_pretrained")
    print("".join(f"  {line}\n" for line in lines), end="")
    return 0


def _fill(partial: Path, run: Run, workspace: Workspace, average: bool) -> list[str]:
    experiment = run.experiment
    model, data = experiment.model, experiment.data
    if not isinstance(data, Text):
        raise SpecError(f"data.kind is `{data.kind}`; only models of text can be exported")
    # torch takes seconds to import, so a run that cannot be exported is refused before.
    from safetensors.torch import load_file

    from gnflow.compiler.build import build_model
    from gnflow.data.prepare import prepare
    from gnflow.data.tokenizer_files import find_end_of_text, write_tokenizer
    from gnflow.models.huggingface.classes import require_transformers
    from gnflow.models.huggingface.decoder import rename_weights, write_config
    from gnflow.models.huggingface.export import compare_logits, write_model

    require_transformers()
    weights = load_file(_find_weights(run, average))
    if isinstance(model, HuggingFaceModel):
        config, named, shards = model.config, weights, Path()
    else:
        write_config(model, data.vocabulary, data.context, None)  # refuses a shape before data is prepared
        shards = prepare(data, workspace, print).directory
        config = write_config(model, data.vocabulary, data.context, find_end_of_text(data, shards))
        named = rename_weights(weights)
    write_model(partial, config, named)
    if isinstance(model, HuggingFaceModel) and data.cut_by is not None and data.cut_by.kind != "huggingface":
        shards = prepare(data, workspace, print).directory
    has_tokenizer = write_tokenizer(partial, data, workspace.root, shards)
    context = min(data.context, COMPARED)
    short = experiment.model_copy(update={"data": data.model_copy(update={"context": context})})
    difference = compare_logits(partial, build_model(short, "plain"), weights, data.vocabulary, context)
    return [
        f"the {'averaged' if average else 'final'} weights of {experiment.name}, {len(named)} tensors in float32",
        f"logits agree with those of the run: they differ by at most {difference:.0e} of the largest",
        "with the tokenizer of the run" if has_tokenizer else "without a tokenizer: the ids of the data were ready",
    ]


def _find_weights(run: Run, average: bool) -> Path:
    """Find the file of the final weights. Raises DataError if there is none, or if it is damaged."""
    from gnflow.train import checkpoint, results

    folder = run.directory / results.MODEL / (results.AVERAGE if average else "")
    if not (folder / checkpoint.PARAMS).is_file():
        if average and (run.directory / results.MODEL).is_dir():
            raise DataError(f"{run.directory} has no averaged weights; `training.average` keeps them")
        status = run.summary.get("status", "not finished")
        raise DataError(f"{run.directory} has no final weights ({status}); finish it with gnflow run first")
    if damage := checkpoint.find_damage(folder):
        raise DataError(f"{folder} is damaged: {damage}; restore a good copy")
    return folder / checkpoint.PARAMS


@contextmanager
def _write_aside(directory: Path) -> Iterator[Path]:
    """Give a folder to write to, which takes the place of `directory` at the end, or is removed after any error."""
    from gnflow.train import disk

    partial = directory.absolute().with_name(f".{directory.absolute().name}.{os.getpid()}.partial")
    try:
        with disk.guard_write(directory):
            partial.mkdir(parents=True)
            yield partial
            partial.replace(directory.absolute())
    finally:
        shutil.rmtree(partial, ignore_errors=True)
