"""Emu3: one decoder, one vocabulary and one head for text and image codes. Only their weights in the loss differ.

Source:   Wang et al. 2024, arXiv:2409.18869
Differs:  there is no dropout; the blocks are those of the decoder here
"""

from torch import Tensor

from gnflow.models.attention import Kernel
from gnflow.models.decoder import build_decoder
from gnflow.models.modality import IDS, weigh
from gnflow.models.model import Model
from gnflow.objective import Params
from gnflow.spec.model import Emu3
from gnflow.spec.multimodal import Data


def build_for_data(spec: Emu3, data: Data, attention: Kernel) -> Model:
    """Build the model for the ids of a `data:` section."""
    return build_emu3(spec, data.vocabulary, attention)


def build_emu3(spec: Emu3, vocabulary: int, kernel: Kernel) -> Model:
    """Build the model for `vocabulary` tokens, which include the image codes."""
    base = build_decoder(spec, vocabulary, kernel)

    embedding, *others = base.layers

    def embed(params: Params, inputs: Tensor) -> Tensor:
        return embedding.run(params, inputs[..., IDS])

    return base._replace(layers=(embedding._replace(function=embed), *others), split=weigh(spec.image_weight))
