"""Read pretrained weights from a directory of transformers. They are safetensors: pickled weights are never opened."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from gnflow.errors import DataError, SpecError
from gnflow.models.huggingface.classes import find_class, silence
from gnflow.objective import Params
from gnflow.spec.huggingface import WEIGHTS

SHOWN = 8


def find_weights(directory: Path) -> Path | None:
    """Find the file of weights, or the index of several; None if there is none."""
    return next((file for name in WEIGHTS if (file := directory / name).is_file()), None)


def read_pretrained(config: str, directory: Path, key: str) -> Params:
    """Read the weights of the model that `config` describes, in float32, by the names of its parameters.

    `key` is the key in the spec that names the directory. Raises DataError for weights that are absent or cannot be
    read, and SpecError for weights that do not fit the config.
    """
    made, cls = find_class(config)
    if find_weights(directory) is None:
        pickled = any(directory.glob("*.bin"))
        more = "; its pickled weights are not opened, save them again as safetensors" if pickled else ""
        raise DataError(f"{key}: there is no {WEIGHTS[0]} in {directory}{more}")
    try:
        with silence():
            model, found = cls.from_pretrained(
                directory, config=made, dtype=torch.float32, local_files_only=True, use_safetensors=True,
                ignore_mismatched_sizes=True, output_loading_info=True, attn_implementation="eager",
            )  # fmt: skip
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise DataError(f"{key}: the weights in {directory} cannot be read: {error}") from None
    if problems := _list_problems(found):
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise SpecError(
            f"{key}: the weights in {directory} are not those of the {cls.__name__} of its config.json\n  "
            + "\n  ".join(problems[:SHOWN])
            + more
        )
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def _list_problems(found: dict[str, Any]) -> list[str]:
    """List the weights that are missing or have another shape."""
    missing = [f"{name}: expected, found nothing" for name in sorted(map(str, found["missing_keys"]))]
    other = [
        f"{name}: expected {tuple(expected)}, found {tuple(there)}"
        for name, there, expected in sorted(found["mismatched_keys"])
    ]
    return missing + other
