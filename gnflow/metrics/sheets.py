"""Sheets of samples: images in `samples/step_00000100.png`, and captions and figures in a `.json` beside it.

A sheet is written before the journal records its step, so every recorded step has its sheet. A step that is computed
again writes the same bytes, since a sheet is a function of the weights, the seed of the run and the held-out data.
"""

import json

import numpy as np
import torch

from gnflow.data.multimodal.dataset import MultimodalDataset
from gnflow.metrics.protocol import Metric, Moment, Subject
from gnflow.metrics.recognition import measure_recognition
from gnflow.metrics.samples import caption_images, draw_images, lay_out, pair
from gnflow.models.generation import Sampling
from gnflow.objective import Metrics
from gnflow.spec import training

COLUMNS = 16
SIDE = 64
"""Least height of an image in a sheet, in pixels."""


def build_samples(spec: training.Samples, subject: Subject) -> Metric:
    """Build the metric. It uses the held-out images of the run's data, so there are no sheets outside a run."""
    sampling = Sampling(spec.guidance, spec.temperature, subject.experiment.training.seed)

    def measure(at: Moment) -> Metrics:
        dataset = at.dataset
        if not isinstance(dataset, MultimodalDataset) or at.write is None:
            return {}
        examples = dataset.list_examples(spec.captions)
        images = np.stack([example.image for example in examples])
        prompts = [example.caption for example in examples]
        longest = max(map(len, dataset.tokenizer.encode(prompts)))
        made = draw_images(subject.network, at.params, dataset, prompts, sampling)
        captions = caption_images(subject.network, at.params, dataset, images, longest)
        found = measure_recognition(dataset, prompts, made, captions)
        quantised = dataset.codec.decode(dataset.codec.encode(images))
        picture = lay_out(pair(quantised, made), min(COLUMNS, len(images)), -(-SIDE // images.shape[1]))
        about = {
            "step": at.step,
            "guidance": sampling.guidance,
            "temperature": sampling.temperature,
            "seed": sampling.seed,
            "figures": found,
            "samples": [{"prompt": one, "caption": other} for one, other in zip(prompts, captions, strict=True)],
        }
        name = f"step_{at.step:08d}"
        at.write(f"{name}.png", picture)
        at.write(f"{name}.json", (json.dumps(about, indent=2, allow_nan=False) + "\n").encode())
        return {column: torch.tensor(value, dtype=torch.float64) for column, value in found.items()}

    return Metric(measure, every=spec.every)
