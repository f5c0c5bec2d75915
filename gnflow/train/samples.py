"""Sheets of what a model draws and says: `samples/step_00000100.png`, and `.json` with its words and figures.

They are written before the journal has the step, so that a step on record has its sheet. A step that is computed again
writes the same bytes: what is drawn is a function of the weights, the seed of the run and the held-out data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from gnflow.data.multimodal.dataset import MultimodalDataset
from gnflow.data.multimodal.samples import Captioned
from gnflow.metrics.evaluation import due
from gnflow.metrics.recognition import figures
from gnflow.metrics.samples import described, drawn, pairs, sheet
from gnflow.models.generation import Sampling
from gnflow.models.model import Model
from gnflow.objective import Params
from gnflow.spec.training import Samples
from gnflow.train import disk

COLUMNS = 16
SIDE = 64
"""Pixels that the height of an image takes up in a sheet, at least."""


@dataclass(frozen=True)
class Sampler:
    """Writes the sheets of one run."""

    spec: Samples
    network: Model
    dataset: MultimodalDataset
    seed: int
    directory: Path

    def due(self, evaluation: int, last: bool) -> bool:
        """Whether evaluation number `evaluation`, from 0, has a sheet."""
        return due(self.spec.every, evaluation, last)

    def write(self, step: int, params: Params) -> Mapping[str, float]:
        """Writes the sheet of a step; returns its figures. Raises DiskProblem."""
        images = np.stack([example.image for example in self._examples])
        prompts = [example.caption for example in self._examples]
        longest = max(map(len, self.dataset.tokenizer.encode(prompts)))
        sampling = Sampling(self.spec.guidance, self.spec.temperature, self.seed)
        made = drawn(self.network, params, self.dataset, prompts, sampling)
        captions = described(self.network, params, self.dataset, images, longest)
        found = figures(self.dataset, prompts, made, captions)
        quantised = self.dataset.codec.decode(self.dataset.codec.encode(images))
        picture = sheet(pairs(quantised, made), min(COLUMNS, len(images)), -(-SIDE // images.shape[1]))
        path = self.directory / f"step_{step:08d}.png"
        disk.write(path, picture)
        words = [{"prompt": one, "caption": other} for one, other in zip(prompts, captions, strict=True)]
        about = {
            "step": step,
            "guidance": sampling.guidance,
            "temperature": sampling.temperature,
            "seed": sampling.seed,
        }
        disk.write_json(path.with_suffix(".json"), {**about, "figures": found, "samples": words})
        return found

    @cached_property
    def _examples(self) -> list[Captioned]:
        return self.dataset.examples(self.spec.captions)
