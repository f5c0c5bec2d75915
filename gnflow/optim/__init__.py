"""Optimizers as pure functions over `dict[str, Tensor]`, which work without a spec.

The factories of all built-in rules are here under the names of their kinds. Each is imported when it is first used.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from gnflow.spec.built_in import BUILT_IN

if TYPE_CHECKING:
    from gnflow.optim.adamw import adamw as adamw
    from gnflow.optim.as_torch import as_torch as as_torch
    from gnflow.optim.combine import chain as chain
    from gnflow.optim.combine import clip_by_global_norm as clip_by_global_norm
    from gnflow.optim.combine import partition as partition
    from gnflow.optim.combine import route as route
    from gnflow.optim.hyperball import hyperball as hyperball
    from gnflow.optim.kfac import kfac as kfac
    from gnflow.optim.kl_soap import kl_soap as kl_soap
    from gnflow.optim.lion import lion as lion
    from gnflow.optim.muon import muon as muon
    from gnflow.optim.newton_muon import newton_muon as newton_muon
    from gnflow.optim.normuon import normuon as normuon
    from gnflow.optim.rmnp import rmnp as rmnp
    from gnflow.optim.soap import soap as soap
    from gnflow.optim.soap_muon import soap_muon as soap_muon
    from gnflow.optim.sophia import sophia as sophia
    from gnflow.spec.rules import Cautious as Cautious

_HOMES = {
    "Cautious": "gnflow.spec.rules",
    "as_torch": "gnflow.optim.as_torch",
    "chain": "gnflow.optim.combine",
    "clip_by_global_norm": "gnflow.optim.combine",
    "hyperball": "gnflow.optim.hyperball",
    "partition": "gnflow.optim.combine",
    "route": "gnflow.optim.combine",
}


class _Package(ModuleType):
    """A package that keeps a factory visible although the module which it comes from has the same name."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and (name in _HOMES or name in BUILT_IN["optimizers"])):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> object:
    if name in _HOMES:
        found: object = getattr(import_module(_HOMES[name]), name)
    elif name in BUILT_IN["optimizers"]:
        from gnflow.spec.classes import find_class
        from gnflow.spec.factory import import_function
        from gnflow.spec.named import list_built_in

        found = import_function(find_class(list_built_in("optimizers")[name])())
    else:
        raise AttributeError(f"module `gnflow.optim` has no `{name}`")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *BUILT_IN["optimizers"]})
