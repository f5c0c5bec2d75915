"""The VQ models of transformers, tiny and with random weights, saved and opened as real ones are."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Emu3VQVAE, Emu3VQVAEConfig, JanusVQVAE, JanusVQVAEConfig

from gnflow.data.multimodal.pretrained import open_pretrained
from gnflow.data.prepare import prepare
from gnflow.errors import DataError
from gnflow.spec.multimodal import Multimodal, PretrainedVQ
from gnflow.workspace import Workspace

KINDS = ("janus", "emu3")
GRID = (4, 4)
SHAPE = {"base_channels": 32, "num_res_blocks": 1, "channel_multiplier": [1, 1], "latent_channels": 32}
SPEC = {"path": "vq", "patch": 2, "codebook": 40}


def tiny(kind: str) -> JanusVQVAE | Emu3VQVAE:
    torch.manual_seed(1)
    if kind == "janus":
        return JanusVQVAE(JanusVQVAEConfig(**SHAPE, embed_dim=4, num_embeddings=40, num_patches=4)).eval()
    shape = {**SHAPE, "latent_channels": 4, "hidden_size": 32, "temporal_downsample_factor": 2, "attn_resolutions": [1]}
    return Emu3VQVAE(Emu3VQVAEConfig(**shape, embed_dim=4, codebook_size=40)).eval()


@pytest.fixture(params=KINDS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, JanusVQVAE | Emu3VQVAE]:
    model = tiny(request.param)
    model.save_pretrained(tmp_path / "vq")
    return request.param, model


def images(count: int = 20, colours: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(count, 8, 8, colours), dtype=np.uint8)


def codec(root: Path, colours: int = 3, grid: tuple[int, int] = GRID, **fields: object):
    return open_pretrained(root / "vq", PretrainedVQ.model_validate({**SPEC, **fields}), grid, colours)


def test_codes_and_images_are_those_of_the_model(saved: tuple[str, JanusVQVAE | Emu3VQVAE], tmp_path: Path) -> None:
    kind, model = saved
    pixels = images()
    floats = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        if kind == "janus":
            codes = model.encode(floats).image_tokens.reshape(20, 16)
            decoded = model.decode(codes)
        else:
            codes = torch.stack(model.encode(floats, torch.tensor([[8, 8]] * 20)).image_tokens)
            decoded = model.decode(codes)
    found = codec(tmp_path)
    assert found.encode(pixels).shape == (20, 16)
    assert (found.encode(pixels) == codes.reshape(20, 16).numpy()).mean() > 0.99  # batches differ in the last bit
    expected = ((decoded.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1).numpy()
    quantised = found.decode(codes.reshape(20, 16).numpy())
    assert quantised.shape == (20, 8, 8, 3)
    assert np.abs(quantised - expected).max() <= 0.51


def test_grey_images_are_grey_in_three_colours(saved: object, tmp_path: Path) -> None:
    grey = images(4, 1)
    assert np.array_equal(codec(tmp_path, 1).encode(grey), codec(tmp_path).encode(grey.repeat(3, axis=3)))
    assert codec(tmp_path, 1).decode(codec(tmp_path, 1).encode(grey)).shape == (4, 8, 8, 1)


def test_the_scale_is_that_of_the_image_processor_beside_it(saved: object, tmp_path: Path) -> None:
    before = codec(tmp_path).encode(images())
    (tmp_path / "vq" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.0] * 3, "image_std": [1.0] * 3})
    )
    assert not np.array_equal(codec(tmp_path).encode(images()), before)
    shifted = (images().astype(float) / 255 * 2 - 1).clip(0, 1) * 255
    assert codec(tmp_path).encode(shifted.astype(np.uint8)).shape == before.shape


@pytest.mark.parametrize(("field", "value", "has"), [("patch", 4, 2), ("codebook", 41, 40)])
def test_what_the_spec_says_must_be_so(saved: object, field: str, value: int, has: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"image_tokenizer\.{field} is {value}, but the model in .* has {has}\nset it"):
        codec(tmp_path, **{field: value})


def test_janus_takes_images_of_one_size(tmp_path: Path) -> None:
    tiny("janus").save_pretrained(tmp_path / "vq")
    with pytest.raises(DataError, match=r"the model has 4 x 4 codes, but an image of data\.source has 4 x 5"):
        codec(tmp_path, grid=(4, 5))


def no_weights(directory: Path) -> None:
    (directory / "model.safetensors").unlink()


def another_model(directory: Path) -> None:
    (directory / "config.json").write_text('{"model_type": "llama"}')


def cut_weights(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def fewer_weights(directory: Path) -> None:
    path = directory / "model.safetensors"
    weights = load_file(path)
    del weights["encoder.conv_in.weight"]
    save_file(weights, path, {"format": "pt"})


def no_json(directory: Path) -> None:
    (directory / "config.json").write_text("{")


def json_without_end(directory: Path) -> None:
    (directory / "config.json").write_text("[" * 100_000)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (no_weights, "no model in"),
        (another_model, "a model of type `llama`; expected janus_vqgan or emu3_vqgan"),
        (cut_weights, "not hold a complete JanusVQVAE"),
        (fewer_weights, "not hold a complete JanusVQVAE: it lacks encoder.conv_in.weight"),
        (no_json, "not a JSON object"),
        (json_without_end, "not a JSON object"),
    ],
)
def test_a_damaged_model_is_named(damage: Callable[[Path], None], problem: str, tmp_path: Path) -> None:
    tiny("janus").save_pretrained(tmp_path / "vq")
    damage(tmp_path / "vq")
    with pytest.raises(DataError, match=problem):
        codec(tmp_path)


def test_digits_are_prepared_with_a_model(saved: tuple[str, object], tmp_path: Path) -> None:
    """The style of the sequences is not that of the model: the two are independent."""
    style = {"janus": "emu3", "emu3": "janus"}[saved[0]]
    source = {"kind": "digits", "captions": 1, "held_out_fraction": 0.97}
    data = Multimodal.model_validate(
        {"style": style, "source": source, "image_tokenizer": {"kind": "transformers", **SPEC}}
    )
    assert data.codebook == 40
    dataset = prepare(data, Workspace(tmp_path))
    ids = np.asarray(dataset.train.ids[dataset.train.find_rows("generation")])
    codes = dataset.sequences.find_codes(ids)
    assert codes.shape == (54, 16)
    assert np.array_equal(dataset.decode_images(ids), dataset.codec.decode(codes))
    saved_again = tmp_path / "vq" / "preprocessor_config.json"
    saved_again.write_text('{"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}')
    assert prepare(data, Workspace(tmp_path)).directory != dataset.directory
