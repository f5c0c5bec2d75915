"""The corpus of a run as MLflow datasets: one for each split, identified by the digest of the prepared data."""

import json
from collections.abc import Mapping

from mlflow.entities import Dataset, DatasetInput, InputTag

from gnflow.track.description import Description, find_text

LONGEST_DIGEST = 36  # MLflow's limit: the first 36 of SHA-256's 64 characters
CONTEXT = "mlflow.data.context"


def list_datasets(about: Description) -> list[DatasetInput]:
    """Return the datasets of a run; empty before its provenance is written. MLflow keeps each dataset once."""
    digest = find_text(about.provenance, "digests", "data")
    data = about.spec.get("data")
    source = data.get("source") if isinstance(data, Mapping) else None
    if digest is None or not isinstance(source, Mapping):
        return []
    kind = str(source.get("kind", "text"))
    corpus = str(source["path"]) if kind == "huggingface" else kind
    return [
        DatasetInput(
            Dataset(f"{corpus}/{split}", digest[:LONGEST_DIGEST], kind, json.dumps(source), profile=json.dumps(data)),
            [InputTag(CONTEXT, split)],
        )
        for split in ("train", "held_out")
    ]
