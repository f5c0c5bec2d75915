"""Processes that file permissions hold for, whoever runs the tests."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

DROP = 24  # prctl's PR_CAPBSET_DROP
OVERRIDES = (1, 2)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, by which root reads what it may not


def without_privilege(*arguments: str, root: Path) -> subprocess.CompletedProcess[str]:
    """`gnflow`, called as an ordinary user would."""
    command = [sys.executable, "-m", "gnflow", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, preexec_fn=_drop)


def _drop() -> None:
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in OVERRIDES:
            if libc.prctl(DROP, capability, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "cannot drop a capability")
