import io
from pathlib import Path

import multimodal
import numpy as np
import pytest
from multimodal import KINDS
from PIL import Image

from gnflow.compiler import build
from gnflow.data.multimodal.dataset import MultimodalDataset
from gnflow.data.prepare import prepare
from gnflow.metrics.samples import LIGHT, _show_images, caption_images, draw_images, encode_png, lay_out
from gnflow.models.generation import Sampling
from gnflow.workspace import Workspace

CAPTIONS = ["the digit seven", "a 3"]


@pytest.fixture(params=KINDS)
def setting(request, tmp_path: Path):
    """(network, weights, dataset, held-out images)."""
    experiment = multimodal.experiment(request.param, {"kind": "adamw"})
    dataset = prepare(experiment.data, Workspace(tmp_path))
    assert isinstance(dataset, MultimodalDataset)
    network = build.build_model(experiment, "flash")
    images = dataset.decode_images(dataset.held_out.ids[dataset.held_out.find_rows("generation")][:3])
    return network, network.init(0), dataset, images


def test_a_caption_becomes_an_image_and_an_image_a_caption(setting):
    network, params, dataset, images = setting
    made = draw_images(network, params, dataset, CAPTIONS, Sampling(temperature=0.5))
    assert made.shape == (2, 8, 8, 1)
    assert np.array_equal(made, draw_images(network, params, dataset, CAPTIONS, Sampling(temperature=0.5)))
    # Nothing but what the codebook holds.
    assert np.array_equal(made, dataset.codec.decode(dataset.codec.encode(made)))
    words = caption_images(network, params, dataset, images, 16)
    assert len(words) == len(images)
    assert all(isinstance(text, str) for text in words)


def test_what_is_shown_to_a_model_is_the_image(setting):
    _, _, dataset, images = setting
    rows = _show_images(dataset, images)
    read = dataset.restore_images(rows) if dataset.data.patch_values else dataset.decode_images(rows[..., 0].numpy())
    assert np.array_equal(read, images)
    assert not rows[..., 1].any()


@pytest.mark.parametrize("colours", [1, 3])
def test_a_png_is_read_as_what_was_written(colours):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, colours), dtype=np.uint8)
    found = np.asarray(Image.open(io.BytesIO(encode_png(image))))
    assert np.array_equal(found, image[..., 0] if colours == 1 else image)


def test_a_sheet_has_the_images_in_order():
    images = np.arange(1, 4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    found = np.asarray(Image.open(io.BytesIO(lay_out(images, columns=2, scale=3))))
    assert found.shape == (2 * 3 * 3, 2 * 3 * 3)
    assert [found[0, 0], found[0, 9], found[9, 0], found[9, 9]] == [1, 2, 3, LIGHT]
