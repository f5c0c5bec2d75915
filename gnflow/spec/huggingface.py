"""The section `model:` for a model of the package transformers. The spec keeps the content of its config.json."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from gnflow.spec.base import Path, refuse
from gnflow.spec.model import ModelKind
from gnflow.workspace import find_root

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
LEFT_OUT = ("auto_map", "_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "_commit_hash")
"""Keys of a config.json that say nothing of the function, or that name code of its directory, which is never run."""
SMALL = {
    "hidden_size": 1, "n_embd": 1, "d_model": 1, "intermediate_size": 2, "n_inner": 2, "ffn_dim": 2,
    "moe_intermediate_size": 2, "shared_expert_intermediate_size": 2,
}  # fmt: skip
"""Sizes of a small copy, as multiples of its width."""
IDS = 16
"""Token ids of a small copy, at most."""
LAYERS = ("num_hidden_layers", "n_layer")


class HuggingFaceModel(ModelKind):
    """A causal language model of the package transformers, in a local directory. Code in the directory is never run."""

    factory = "gnflow.models.huggingface.build:build_for_data"
    kind: Literal["huggingface"] = "huggingface"
    path: Path
    """The directory with `config.json`. With weights in it (`*.safetensors`), a run starts from them by default. The
    path is relative to the project root."""
    config: Annotated[str, Field(min_length=2)] = ""
    """The content of `config.json`, as JSON text. A run keeps it, so that it does not depend on the directory. Default:
    it is read from `path`."""

    @property
    def values(self) -> dict[str, Any]:
        """The content of config.json."""
        content: dict[str, Any] = json.loads(self.config)
        return content

    @property
    def vocabulary(self) -> int:
        """The number of token ids that the model knows; 0 if config.json leaves it to the class."""
        found = self.values.get("vocab_size", 0)
        return found if isinstance(found, int) else 0

    @property
    def side(self) -> int:
        """The width of the features."""
        return next((self.values[key] for key in ("hidden_size", "n_embd", "d_model") if key in self.values), 1)

    @property
    def has_weights(self) -> bool:
        """Whether the directory has weights."""
        directory = find_root() / self.path
        return any((directory / name).is_file() for name in WEIGHTS)

    def smaller(self, side: int) -> Self:
        """Return a model of the same class with one layer of each type, two heads and this width."""
        values = self.values
        kinds = list(dict.fromkeys(values.get("layer_types") or ["all"]))
        small: dict[str, object] = {key: factor * side for key, factor in SMALL.items() if values.get(key)}
        grouped = values.get("num_key_value_heads") not in (None, values.get("num_attention_heads"))
        small |= {key: 2 for key in ("num_attention_heads", "n_head") if values.get(key)}
        small |= {"num_key_value_heads": 1 if grouped else 2} if values.get("num_key_value_heads") else {}
        small |= {key: len(kinds) for key in LAYERS if key in values}
        small |= {key: side // 2 for key in ("head_dim", "query_pre_attn_scalar") if values.get(key)}
        small |= {"layer_types": kinds} if values.get("layer_types") else {}
        small |= {key: min(values[key], 4) for key in ("sliding_window",) if values.get(key)}
        small |= {key: min(values[key], IDS) for key in ("vocab_size",) if values.get(key)}
        layers = next((values[key] for key in LAYERS if key in values), 0)
        cut = {
            key: each[: len(kinds)] for key, each in values.items() if isinstance(each, list) and len(each) == layers
        }
        kept = {key: value for key, value in {**values, **cut, **small}.items() if not key.endswith("_token_id")}
        return self.model_copy(update={"config": format_config(kept)})

    @model_validator(mode="before")
    @classmethod
    def _read_config(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("path"), str):
            return given
        if text := given.get("config"):
            return {**given, "config": format_config(_parse(text, "`config`", "config"))}
        file = find_root() / given["path"] / CONFIG
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeError, ValueError):
            what = "cannot be read" if file.exists() else "does not exist"
            raise refuse(
                f"{file} {what}; expected a directory with the config.json of a causal model of transformers", "path"
            ) from None
        return {**given, "config": format_config(_parse(text, str(file), "path"))}


def format_config(values: dict[str, Any]) -> str:
    """Return the JSON text of a config, without the keys that do not matter."""
    return json.dumps({key: value for key, value in sorted(values.items()) if key not in LEFT_OUT})


def _parse(text: object, where: str, key: str) -> dict[str, Any]:
    try:
        content = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError) as error:
        raise refuse(f"{where} is not JSON: {error}", key) from None
    if not isinstance(content, dict) or not isinstance(content.get("model_type"), str):
        raise refuse(f"{where} is no config of a model: it has no `model_type`", key)
    return content
