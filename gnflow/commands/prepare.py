"""`gnflow prepare`: tokenize to shards."""

from collections.abc import Sequence
from pathlib import Path

from gnflow.data.prepare import prepare as make_shards
from gnflow.spec.load import load


def prepare(specs: Sequence[Path], *, sets: Sequence[str]) -> int:
    """Make or verify the shards of each spec, and say what they hold. Every spec is checked before any work."""
    for loaded in [load(path, sets) for path in specs]:
        dataset = make_shards(loaded.experiment.data, loaded.workspace, print)
        print(dataset.directory)
        for line in (*dataset.describe(), f"digest    {dataset.digest}"):
            print(f"  {line}")
    return 0
