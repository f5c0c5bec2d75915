"""The built-in kinds of the groups that a project can add to, one row for each kind.

A row has the form that a project uses in its `pyproject.toml`, and is handled in the same way: a class is imported when
it is used.
"""

from collections.abc import Mapping

BUILT_IN: Mapping[str, Mapping[str, str]] = {
    "optimizers": {
        "adamw": "gnflow.spec.rules:AdamWRule",
        "muon": "gnflow.spec.rules:MuonRule",
        "rmnp": "gnflow.spec.rules:RmnpRule",
        "soap": "gnflow.spec.rules:SoapRule",
        "lion": "gnflow.optim.lion:LionRule",
        "normuon": "gnflow.optim.normuon:NorMuonRule",
        "kl_soap": "gnflow.optim.kl_soap:KlSoapRule",
        "soap_muon": "gnflow.optim.soap_muon:SoapMuonRule",
        "sophia": "gnflow.optim.sophia:SophiaRule",
        "kfac": "gnflow.optim.kfac:KfacRule",
        "newton_muon": "gnflow.optim.newton_muon:NewtonMuonRule",
    },
    "models": {
        "decoder": "gnflow.spec.model:Decoder",
        "emu3": "gnflow.spec.model:Emu3",
        "janus": "gnflow.spec.model:Janus",
        "huggingface": "gnflow.spec.huggingface:HuggingFaceModel",
    },
    "sources": {
        "shakespeare": "gnflow.spec.data:Shakespeare",
        "files": "gnflow.spec.data:Files",
        "package": "gnflow.spec.data:Package",
        "huggingface": "gnflow.spec.data:HuggingFace",
        "tokens": "gnflow.spec.data:Tokens",
    },
    "metrics": {
        "loss": "gnflow.spec.training:Loss",
        "cost": "gnflow.spec.training:Cost",
        "update_norms": "gnflow.spec.training:UpdateNorms",
        "dominance": "gnflow.spec.training:Dominance",
        "modality_conflict": "gnflow.spec.training:ModalityConflict",
        "samples": "gnflow.spec.training:Samples",
        "curvature": "gnflow.spec.training:Curvature",
        "preconditioners": "gnflow.spec.preconditioners:Preconditioners",
    },
    "trackers": {
        "mlflow": "gnflow.spec.tracking:Mlflow",
        "tensorboard": "gnflow.spec.tracking:TensorBoard",
        "wandb": "gnflow.spec.tracking:Wandb",
    },
}
"""Group -> kind -> `module:class`."""

GIVE_WAY: Mapping[str, frozenset[str]] = {
    "optimizers": frozenset({"lion", "normuon", "kl_soap", "soap_muon", "sophia", "kfac", "newton_muon"}),
    "models": frozenset({"huggingface"}),
}
"""Kinds that were added after projects could name kinds of their own. If a project or a distribution names a kind the
same, its own is used. All other names are taken."""
