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
