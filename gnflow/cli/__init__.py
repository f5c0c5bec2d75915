"""The verbs of `gnflow`. Each imports its command only when it is called."""

import os
import sys
import traceback

from gnflow import streams
from gnflow.cli.app import app as app
from gnflow.errors import EnvironmentProblem, GnflowError, is_out_of_memory
from gnflow.secrets import hide_secrets

# In the order of `gnflow --help`.
from gnflow.cli import specs as specs  # isort: skip
from gnflow.cli import runs as runs  # isort: skip
from gnflow.cli import studies as studies  # isort: skip
from gnflow.cli import machine as machine  # isort: skip


def main() -> None:
    """Run the command line and exit with a code of the README. Errors that users can act on have no traceback."""
    # Looking for pydantic plug-ins in every installed distribution takes longer than checking a spec.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")
    streams.settle()
    try:
        try:
            app(prog_name="gnflow")
        finally:
            streams.flush()
    except GnflowError as error:
        print(hide_secrets(str(error)), file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader has left, as `head` does
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if is_out_of_memory(error):
            print("There is not enough memory. `gnflow plan SPEC` says how much a run needs, and what would need less.",
                  file=sys.stderr)  # fmt: skip
            sys.exit(EnvironmentProblem.exit_code)
        print(hide_secrets(traceback.format_exc()), file=sys.stderr)
        print("This is a fault in gnflow. Please report it, with the lines above and the spec.", file=sys.stderr)
        sys.exit(1)
