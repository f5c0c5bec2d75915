"""Write a directory that `AutoModelForCausalLM.from_pretrained` loads, and compare its logits with those of a run."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gnflow.errors import EnvironmentProblem, SpecError
from gnflow.models.huggingface.classes import find_class, silence
from gnflow.models.model import Model
from gnflow.objective import Params

TOLERANCE = 1e-4
"""Largest difference of a logit, relative to the largest of all, that rounding may cause in float32."""
ROWS = 2


def write_model(directory: Path, config: str, weights: Params) -> None:
    """Write config.json and the weights, in float32. Raises SpecError if the class does not have exactly these."""
    made, cls = find_class(config)
    made.architectures = [cls.__name__]
    with silence():
        with torch.device("meta"):
            model = cls._from_config(made, dtype=torch.float32)
        wanted = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
        given = {name: tuple(weight.shape) for name, weight in weights.items()}
        if wanted != given:
            odd = ", ".join(sorted({name for name, _ in wanted.items() ^ given.items()})[:3])
            raise SpecError(f"the weights of the run are not those of {cls.__name__}: {odd}")
        model.load_state_dict(weights, strict=False, assign=True)
        model.tie_weights()
        model.save_pretrained(directory)


def compare_logits(directory: Path, network: Model, params: Params, vocabulary: int, context: int) -> float:
    """Return the largest difference between the logits of the directory and of the run, relative to the largest logit.

    Raises EnvironmentProblem if it is not rounding.
    """
    from transformers import AutoModelForCausalLM

    ids = torch.randint(vocabulary, (ROWS, context), generator=torch.Generator().manual_seed(0))
    with silence(), torch.no_grad():
        model: Any = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, local_files_only=True, trust_remote_code=False
        )
        theirs: Tensor = model.eval()(input_ids=ids, use_cache=False).logits
        ours = network.compute_logits(params, ids)
    difference = float((ours - theirs).abs().max() / theirs.abs().max())
    if not difference < TOLERANCE:
        raise EnvironmentProblem(
            f"the exported model computes other logits than the run (they differ by {difference:.1e} of the largest), "
            "so it was not kept\nthis version of transformers may have changed the class"
        )
    return difference
