"""`python -m gnflow`."""

from gnflow.cli import main

main()
