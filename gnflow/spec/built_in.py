"""The kinds that come with gnflow: one row for each, and nothing else in the package lists them.

A row is what a project writes in its `pyproject.toml`, and goes the same way: a class is imported when it is used.
"""

from collections.abc import Mapping

BUILT_IN: Mapping[str, Mapping[str, str]] = {
    "optimizers": {
        "adamw": "gnflow.spec.rules:AdamWRule",
        "muon": "gnflow.spec.rules:MuonRule",
        "rmnp": "gnflow.spec.rules:RmnpRule",
        "soap": "gnflow.spec.rules:SoapRule",
        "lion": "gnflow.optim.lion:Lion",
        "normuon": "gnflow.optim.normuon:NorMuon",
        "kl_soap": "gnflow.optim.kl_soap:KlSoap",
        "soap_muon": "gnflow.optim.soap_muon:SoapMuon",
    },
    "models": {
        "decoder": "gnflow.spec.model:Decoder",
        "emu3": "gnflow.spec.model:Emu3",
        "janus": "gnflow.spec.model:Janus",
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
    },
}
"""Group -> kind -> `module:class`."""
