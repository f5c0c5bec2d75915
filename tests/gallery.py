"""The handwritten digits prepared small, and multimodal shards damaged on purpose."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars

from gnflow.data.multimodal.dataset import MultimodalDataset
from gnflow.data.prepare import prepare
from gnflow.metrics.samples import encode_png
from gnflow.spec.multimodal import Multimodal
from gnflow.workspace import Workspace

STYLES = ("emu3", "janus")


def multimodal(style: str, **section: object) -> Multimodal:
    """The `data:` section with these values, one caption an image unless they say otherwise."""
    return Multimodal.model_validate({"style": style, "source": {"kind": "digits", "captions": 1}, **section})


def reopened(dataset: MultimodalDataset) -> MultimodalDataset:
    """The same directory, opened and checked again."""
    return prepare(dataset.data, Workspace(dataset.root))


def rewritten(dataset: MultimodalDataset, name: str, change: Callable[[np.ndarray], None]) -> Path:
    """A file of the dataset changed, and the manifest made to agree with it, as another program might."""
    path = dataset.directory / name
    content = np.load(path)
    change(content)
    np.save(path, content)
    manifest = json.loads((dataset.directory / "manifest.json").read_text())
    raw = path.read_bytes()
    manifest["files"][name] = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    (dataset.directory / "manifest.json").write_text(json.dumps(manifest))
    return path


def photographs(path: Path, count: int) -> None:
    """A Parquet file of random images, 4 x 4 in colour, with captions that name no digit alone."""
    drawn = np.random.default_rng(0).integers(256, size=(count, 4, 4, 3), dtype=np.uint8)
    rows = {
        "image": [encode_png(image) for image in drawn],
        "text": [f"photograph {number}" for number in range(count)],
    }
    polars.DataFrame(rows).write_parquet(path)
