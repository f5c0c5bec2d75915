"""Measure in a process of its own, so that nothing of other measurements is compiled, cached or in memory there."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any


def measure_alone(script: str, *arguments: object, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a script with these arguments, all but strings as JSON, and return what it prints, which is JSON too."""
    given = [each if isinstance(each, str) else json.dumps(each) for each in arguments]
    done = subprocess.run(
        [sys.executable, script, *given],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    print(*given, done.stdout.strip(), file=sys.stderr, flush=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
