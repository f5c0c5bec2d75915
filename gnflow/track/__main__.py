"""`python -m gnflow.track RUN..`: mirror run directories that MLflow does not have, or not wholly."""

import sys
from pathlib import Path

from gnflow.errors import GnflowError
from gnflow.track.mirror import replay

if __name__ == "__main__":
    try:
        for argument in sys.argv[1:]:
            print(f"{argument} is run {replay(Path(argument))}")
    except GnflowError as problem:
        print(problem, file=sys.stderr)
        sys.exit(problem.exit_code)
    sys.exit(0 if sys.argv[1:] else "usage: python -m gnflow.track RUN..")
