"""Optimizers as pure functions over `dict[str, Tensor]`; usable without a spec."""

from gnflow.optim.adamw import adamw as adamw
from gnflow.optim.as_torch import as_torch as as_torch
from gnflow.optim.combine import chain as chain
from gnflow.optim.combine import clip_by_global_norm as clip_by_global_norm
from gnflow.optim.combine import partition as partition
from gnflow.optim.combine import route as route
from gnflow.optim.muon import muon as muon
from gnflow.optim.rmnp import rmnp as rmnp
from gnflow.optim.soap import soap as soap
