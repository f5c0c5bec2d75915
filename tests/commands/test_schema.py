import json
from pathlib import Path

import pytest

from gnflow.commands.schema import print_schema


def test_it_is_printed_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert print_schema(None) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed)["title"] == "gnflow spec"
    assert print_schema(tmp_path / "schema.json") == 0
    assert (tmp_path / "schema.json").read_text("utf-8") == printed
    assert capsys.readouterr().out == ""
