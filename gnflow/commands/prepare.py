"""`gnflow prepare`: tokenize to shards."""

from collections.abc import Sequence
from pathlib import Path

from gnflow.data.batches import row_count
from gnflow.data.prepare import prepare as make_shards
from gnflow.spec.load import load


def prepare(specs: Sequence[Path], *, sets: Sequence[str]) -> int:
    """Make or verify the shards of each spec, and say what they hold. Every spec is checked before any work."""
    for loaded in [load(path, sets) for path in specs]:
        data = loaded.experiment.data
        dataset = make_shards(data, loaded.workspace, print)
        print(dataset.directory)
        for name, tokens in (("train", dataset.train), ("held out", dataset.held_out)):
            rows = row_count(len(tokens), data.context)
            print(f"  {name:<9} {len(tokens):>13,} tokens  {rows:>11,} rows of {data.context}")
        if dataset.bytes_per_token:
            print(f"  held-out text has {dataset.bytes_per_token:.3f} bytes a token")
        print(f"  digest    {dataset.digest}")
    return 0
