"""Measure whether text and images pull a matrix in the same direction, the conflict that ML-FOP-SOAP addresses.

    cosine      <G_text, G_image> / |G_text| |G_image|
    norm ratio  |G_image| / |G_text|

G_text and G_image are the mean gradients of the two losses over some held-out micro-batches. Both columns are means
over the matrices that map features to features, and over the matrices of each block. A matrix that one of the losses
does not depend on, such as a head of one modality, is left out.
"""

import torch
from torch import Tensor

from gnflow.metrics.protocol import Metric, Moment, Subject
from gnflow.models.modality import keep_modality
from gnflow.models.model import Model
from gnflow.objective import Metrics, Params
from gnflow.optim.means import average_gradient
from gnflow.spec import training


def build_modality_conflict(spec: training.ModalityConflict, subject: Subject) -> Metric:
    """Build the metric, which compares the two mean gradients at every evaluation."""

    def measure(at: Moment) -> Metrics:
        text, _ = average_gradient(at.objective, at.params, keep_modality(at.batch, "text"))
        image, _ = average_gradient(at.objective, at.params, keep_modality(at.batch, "image"))
        return compare(subject.network, text, image)

    return Metric(measure, spec.microbatches)


def compare(network: Model, text: Params, image: Params) -> Metrics:
    """Return `conflict/cosine` and `conflict/norm_ratio`, over all hidden matrices and for each block."""
    both = {name: _compare_matrices(text[name], image[name]) for name in text if text[name].ndim == 2}
    alive = {name: found for name, found in both.items() if found.isfinite().all()}
    names = {"": network.hidden, **{f"/{block}": frozenset(names) for block, names in network.blocks.items()}}
    metrics: Metrics = {}
    for suffix, members in names.items():
        if found := [alive[name] for name in alive if name in members]:
            cosine, ratio = torch.stack(found).mean(0)
            metrics |= {f"conflict/cosine{suffix}": cosine, f"conflict/norm_ratio{suffix}": ratio}
    return metrics


def _compare_matrices(text: Tensor, image: Tensor) -> Tensor:
    """Return (cosine, norm ratio), which are not finite if either gradient is 0."""
    one, two = torch.linalg.vector_norm(text), torch.linalg.vector_norm(image)
    return torch.stack(((text * image).sum() / (one * two), torch.where(two > 0, two / one, torch.nan)))
