"""JanusVQVAE and Emu3VQVAE of the package transformers, from a local directory."""

import json
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from gnflow.data.multimodal.samples import Codec, Codes, Pixels
from gnflow.errors import DataError, EnvironmentProblem
from gnflow.spec.multimodal import PretrainedVQ

BATCH = 16
KINDS = {"janus_vqgan": "JanusVQVAE", "emu3_vqgan": "Emu3VQVAE"}

Number = TypeVar("Number", bound=np.generic)


class Scale(NamedTuple):
    """The scale of pixel values: from 0 to 1, shifted by `mean` and divided by `spread`, for each colour."""

    mean: Tensor
    spread: Tensor


def list_model_files(directory: Path) -> list[Path]:
    """List the files of a model. Raises DataError if there is no model."""
    found = sorted(path for path in directory.glob("*") if path.suffix in (".json", ".safetensors"))
    if not any(path.suffix == ".safetensors" for path in found) or directory / "config.json" not in found:
        raise DataError(
            f"data.image_tokenizer.path: there is no model in {directory}\n"
            "expected config.json and *.safetensors, as `save_pretrained` writes them"
        )
    return found


def open_pretrained(directory: Path, spec: PretrainedVQ, grid: tuple[int, int], colours: int) -> Codec:
    """Open the model in `directory`. Raises DataError if it does not fit `spec`."""
    list_model_files(directory)
    config = _read_json(directory / "config.json")
    kind = str(config.get("model_type"))
    if kind not in KINDS:
        raise DataError(
            f"{directory} holds a model of type `{kind}`; expected {' or '.join(KINDS)}\nsave the VQ part alone: "
            "model.model.vqmodel.save_pretrained(...)"
        )
    janus = kind == "janus_vqgan"
    multipliers, codes = config.get("channel_multiplier"), config.get("num_embeddings" if janus else "codebook_size")
    _require_agreement(
        directory, "patch", spec.patch, 2 ** (len(multipliers) - 1) if isinstance(multipliers, list) else None
    )
    _require_agreement(directory, "codebook", spec.codebook, codes)
    found = config.get("num_patches")
    if janus and grid != (found, found):
        raise DataError(
            f"{directory}: the model has {found} x {found} codes, but an image of data.source has "
            f"{grid[0]} x {grid[1]}\n"
            "give images of the size that it was made for"
        )
    model, scale = _load(directory, KINDS[kind]), _read_scale(directory)

    def encode(images: Pixels) -> Codes:
        return np.concatenate([_encode(model, _to_floats(part, scale), janus) for part in _batch(images)])

    def decode(codes: Codes) -> Pixels:
        return np.concatenate([_to_pixels(_decode(model, part, grid, janus), scale, colours) for part in _batch(codes)])

    return Codec(encode, decode)


class _Encoded(Protocol):
    image_tokens: Tensor | list[Tensor]


class _Model(Protocol):
    def encode(self, *inputs: Tensor) -> _Encoded: ...
    def decode(self, codes: Tensor) -> Tensor: ...


def _load(directory: Path, name: str) -> _Model:
    try:
        import transformers
    except ModuleNotFoundError:
        raise EnvironmentProblem(
            "an image tokenizer of kind `transformers` needs that package, which is not installed\n"
            "run: pip install 'gnflow[hf]'"
        ) from None
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it has no annotations
    try:
        model, found = getattr(transformers, name).from_pretrained(
            directory, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{directory} does not hold a complete {name}: {error}\ncopy or save it again") from None
    # The package fills what a file lacks with random numbers.
    if lacking := sorted(map(str, found["missing_keys"])):
        raise DataError(
            f"{directory} does not hold a complete {name}: it lacks {', '.join(lacking[:3])}\ncopy or save it again"
        )
    return cast(_Model, model.eval())


@torch.inference_mode()
def _encode(model: _Model, images: Tensor, janus: bool) -> Codes:
    sizes = torch.tensor([images.shape[2:]] * len(images))
    found = model.encode(*(images,) if janus else (images, sizes)).image_tokens
    tokens = found if isinstance(found, Tensor) else torch.stack(found)
    return np.asarray(tokens.reshape(len(images), -1).numpy(), dtype=np.int64)


@torch.inference_mode()
def _decode(model: _Model, codes: Codes, grid: tuple[int, int], janus: bool) -> Tensor:
    tokens = torch.from_numpy(codes)
    return model.decode(tokens if janus else tokens.reshape(-1, *grid))


def _to_floats(images: Pixels, scale: Scale) -> Tensor:
    """Turn whole numbers [images, height, width, colours] into [images, 3, height, width] as the model takes them."""
    values = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (values.expand(-1, 3, -1, -1) - scale.mean) / scale.spread


def _to_pixels(images: Tensor, scale: Scale, colours: int) -> Pixels:
    values = (images * scale.spread + scale.mean).clamp(0, 1) * 255
    values = values if colours == 3 else values.mean(dim=1, keepdim=True)
    return np.asarray(values.round().to(torch.uint8).permute(0, 2, 3, 1).numpy())


def _read_scale(directory: Path) -> Scale:
    """Read the scale of the image processor that is beside the model; -1 to 1 if there is none."""
    path = directory / "preprocessor_config.json"
    found = _read_json(path) if path.is_file() else {}
    mean, spread = found.get("image_mean", [0.5] * 3), found.get("image_std", [0.5] * 3)
    return Scale(torch.tensor(mean).reshape(3, 1, 1), torch.tensor(spread).reshape(3, 1, 1))


def _require_agreement(directory: Path, key: str, said: int, found: object) -> None:
    if said != found:
        raise DataError(
            f"data.image_tokenizer.{key} is {said}, but the model in {directory} has {found}\nset it to {found}"
        )


def _read_json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a JSON object: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a JSON object")
    return content


def _batch(values: NDArray[Number]) -> list[NDArray[Number]]:
    return [values[start : start + BATCH] for start in range(0, len(values), BATCH)]
