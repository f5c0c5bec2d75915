"""The class of transformers that a config names. Code that a directory brings along is never run."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gnflow.errors import EnvironmentProblem, SpecError

KEY = "model.path"


def find_class(config: str) -> tuple[Any, Any]:
    """Return (config, class of the causal model) for the text of a `config.json`.

    Raises SpecError if it names no causal language model of transformers, and EnvironmentProblem without the package.
    """
    require_transformers()
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

    content = json.loads(config)
    kind, named = content.get("model_type"), content.get("architectures") or []
    if content.get("quantization_config"):
        raise SpecError(f"{KEY}: config.json describes quantised weights, which cannot be trained")
    if kind not in CONFIG_MAPPING:
        raise SpecError(
            f"{KEY}: transformers has no `model_type` `{kind}`\n"
            "code of a model's own directory is never run; take a model whose class is in transformers itself"
        )
    try:
        made = CONFIG_MAPPING[kind].from_dict({key: value for key, value in content.items() if key != "auto_map"})
        found: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(made), None)
    except Exception as error:  # the package raises many classes for what it cannot take, some of them its own
        raise SpecError(f"{KEY}: config.json is no config of `{kind}`: {_shorten(error)}") from None
    if isinstance(found, tuple):
        found = next((each for each in found if each.__name__ in named), found[0])
    if found is None or (named and found.__name__ not in named):
        own = named[0] if named else f"a model of type `{kind}`"
        there = "transformers has none of this type" if found is None else f"expected {found.__name__}"
        raise SpecError(f"{KEY}: {own} is no causal language model; {there}")
    return made, found


def require_transformers() -> None:
    """Raise EnvironmentProblem unless transformers can be imported and is new enough."""
    try:
        import transformers
    except ModuleNotFoundError:
        raise EnvironmentProblem(
            "a model of kind `huggingface` needs the package transformers, which is not installed\n"
            "run: pip install 'gnflow[hf]'"
        ) from None
    if int(transformers.__version__.partition(".")[0]) < 5:
        raise EnvironmentProblem(
            f"a model of kind `huggingface` needs transformers 5 or later, not {transformers.__version__}\n"
            "run: pip install -U transformers"
        )


@contextmanager
def silence() -> Iterator[None]:
    """Keep transformers from printing warnings and progress inside the context."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it has no annotations
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it has no annotations
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # it has no annotations


def _shorten(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
