"""`gnflow prepare`: tokenize to shards."""

from collections.abc import Sequence
from pathlib import Path

from gnflow.data.batches import row_count
from gnflow.data.dataset import Dataset
from gnflow.data.multimodal.dataset import MultimodalDataset
from gnflow.data.multimodal.write import TASKS
from gnflow.data.prepare import prepare as make_shards
from gnflow.errors import DataError, EnvironmentProblem, GnflowError
from gnflow.spec.load import Loaded, load


def prepare(specs: Sequence[Path], *, sets: Sequence[str]) -> int:
    """Make or verify the shards of each spec, and say what they hold. Every spec is checked before any work.

    What is wrong with the data of one is raised when those of the others are ready.
    """
    problems: list[GnflowError] = []
    for loaded in [load(path, sets) for path in specs]:
        try:
            _prepare(loaded)
        except (DataError, EnvironmentProblem) as problem:
            problems.append(problem)
    if problems:
        raise type(problems[0])("\n".join(dict.fromkeys(str(problem) for problem in problems)))
    return 0


def _prepare(loaded: Loaded) -> None:
    data = loaded.experiment.data
    dataset = make_shards(data, loaded.workspace, print)
    print(dataset.directory)
    if isinstance(dataset, MultimodalDataset):
        _show_mixture(dataset)
    else:
        _show_text(dataset, data.context)
    print(f"  digest    {dataset.digest}")


def _show_text(dataset: Dataset, context: int) -> None:
    for name, tokens in (("train", dataset.train), ("held out", dataset.held_out)):
        rows = row_count(len(tokens), context)
        print(f"  {name:<9} {len(tokens):>13,} tokens  {rows:>11,} rows of {context}")
    if dataset.bytes_per_token:
        print(f"  held-out text has {dataset.bytes_per_token:.3f} bytes a token")


def _show_mixture(dataset: MultimodalDataset) -> None:
    for split, name in (("train", "train"), ("held_out", "held out")):
        counts = dataset.counts[split]
        rows = {task: counts[task] for task in TASKS}
        filled = counts["tokens"] / (sum(rows.values()) * (dataset.data.context + 1))
        print(
            f"  {name:<9} {counts['samples']:>13,} samples {sum(rows.values()):>11,} rows of {dataset.data.context} "
            f"({', '.join(f'{task} {number:,}' for task, number in rows.items())}), {filled:.0%} filled"
        )
    error, used, images = dataset.reconstruction
    print(
        f"  {images:,} held-out images come back with an error of {error:.1f} of 255 (root mean square), "
        f"in {used:,} of {dataset.data.codebook:,} codes"
    )
