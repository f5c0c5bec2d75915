"""`gnflow schema`: print the JSON Schema of a spec, for editors."""

import json
from pathlib import Path

from gnflow.spec.kinds import use_kinds_of
from gnflow.spec.schema import make_schema as schema_of_specs
from gnflow.workspace import Workspace


def print_schema(output: Path | None) -> int:
    """Print the schema, including the kinds of the current project, or write it to `output`."""
    with use_kinds_of(Workspace.find(Path.cwd())):
        text = json.dumps(schema_of_specs(), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        print(text, end="")
    else:
        output.write_text(text, encoding="utf-8")
    return 0
