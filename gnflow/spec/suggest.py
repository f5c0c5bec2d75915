"""The valid name that was probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache

from gnflow.spec.base import Spec, listed
from gnflow.spec.experiment import Experiment
from gnflow.spec.grammar import Shape, everywhere, shapes
from gnflow.spec.kinds import Kinds, current
from gnflow.spec.open import usable
from gnflow.spec.tree import dotted

_SURE, _LIKELY = 0.75, 0.6

# What other frameworks call the same thing.
_ELSEWHERE = {
    "batch_size": "rows",
    "block_size": "context",
    "d_model": "width",
    "dim": "width",
    "epsilon": "eps",
    "grad_clip": "clip",
    "gradient_accumulation_steps": "microbatches",
    "hidden_size": "width",
    "lr": "learning_rate",
    "max_steps": "steps",
    "n_embd": "width",
    "n_head": "heads",
    "n_layer": "layers",
    "num_heads": "heads",
    "num_layers": "layers",
    "seq_len": "context",
    "sequence_length": "context",
    "vocab_size": "vocabulary",
    "wd": "weight_decay",
}


def nearest(word: str, names: Iterable[str], cutoff: float = _LIKELY) -> str | None:
    """The name most like `word`, if any is like it; capitals and dashes do not count."""
    plain = {name.lower().replace("-", "_"): name for name in names}
    found = get_close_matches(word.lower().replace("-", "_"), plain, n=1, cutoff=cutoff)
    return plain[found[0]] if found else None


def for_key(key: str, shape: Shape, kind: str, root: type[Spec] = Experiment) -> tuple[str, str | None]:
    """For a `key` unknown to the `kind` that stands here: what to add to the message, and the name to suggest."""
    here = shapes(shape.models[kind])
    if owners := [f"`{other}`" for other, model in usable(shape.models) if key in shapes(model)]:
        return f"; `{key}` belongs to {listed(owners)}", None
    if ":" in key:
        return "; write a space after the colon", None
    known = _ELSEWHERE.get(key.lower(), key)
    if near := known if known in here else nearest(key, here, _SURE):
        return "", near
    for other, model in usable(shape.models):
        if near := nearest(key, shapes(model), _SURE):
            return f"; `{other}` has `{near}`", None
    if places := _places(root, current()).get(known):
        name = "it" if known == key else f"gnflow calls it `{known}`, which"
        return f"; {name} belongs {listed(places[:3])}", None
    if near := nearest(key, here):
        return "", near
    valid = [f"`{name}`" for name in here if name != "kind"]
    return (f"; valid keys are {listed(valid)}" if valid else f"; `{kind}` takes none"), None


@cache
def _places(root: type[Spec], kinds: Kinds) -> dict[str, tuple[str, ...]]:
    """For every key, the mappings that have it, the nearest to the root first."""
    places: dict[str, dict[str, None]] = {}
    for path, model in everywhere(Shape("a mapping", {"": root})):
        place = f"in `{dotted(path)}`" if path else "at the top of the file"
        for key in shapes(model):
            places.setdefault(key, {})[place] = None
    return {key: tuple(found) for key, found in places.items()}
