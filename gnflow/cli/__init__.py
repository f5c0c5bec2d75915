"""The verbs of `gnflow`. Each imports its command only when it is called."""

import os
import sys

from gnflow import streams
from gnflow.cli.app import app as app

# In the order of `gnflow --help`.
from gnflow.cli import specs as specs  # isort: skip
from gnflow.cli import runs as runs  # isort: skip
from gnflow.cli import studies as studies  # isort: skip
from gnflow.cli import machine as machine  # isort: skip


def main() -> None:
    """Run the command line and exit with a code of docs/running.md. Errors that users can act on have no traceback."""
    # Looking for pydantic plug-ins in every installed distribution takes longer than checking a spec.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")
    streams.settle()
    try:
        try:
            app(prog_name="gnflow")
        finally:
            streams.flush()
    except (Exception, KeyboardInterrupt) as error:
        code, words = streams.explain(error)
        if words:
            print(words, file=sys.stderr)
        sys.exit(code)
