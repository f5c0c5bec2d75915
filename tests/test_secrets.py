"""Secrets are taken out of whatever is shown or stored."""

import sys

import pytest

from gnflow.cli import main
from gnflow.errors import DataError
from gnflow.secrets import has_secret, hide_secrets, is_secret_name


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("at https://me:secret@host/x failed", "at https://host/x failed"),
        ("https://me:s@cret@host/x", "https://host/x"),
        ("postgresql://me:pw@host:5432/db and http://token@host", "postgresql://host:5432/db and http://host"),
        ("key = 'hf_abcdefghijklmnopqrstuv'", "key = '***'"),
        ("get http://host/a?token=abc&rows=3", "get http://host/a?token=***&rows=3"),
        ("get http://host/a?rows=3&X-Signature=1&access_token=abc#x", "get http://host/a?rows=3&X-Signature=1&access_token=***#x"),
    ],
)  # fmt: skip
def test_addresses_and_tokens_are_shown_without_their_secret(text: str, left: str) -> None:
    assert has_secret(text)
    assert hide_secrets(text) == left


@pytest.mark.parametrize(
    "text", ["/data/a@b.txt", "sqlite:////tmp/a@b.db", "a: b", "tokens=5", "https://host/tokens?page=2", "sk_small"]
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert not has_secret(text)
    assert hide_secrets(text) == text


def test_secrets_of_the_environment_are_hidden_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "opaque-value")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:p%40ssword@host")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "forever")
    text = "opaque-value, p%40ssword, p@ssword, forever"
    assert hide_secrets(text) == "***, ***, ***, forever"


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("HF_TOKEN", True), ("AWS_SECRET_ACCESS_KEY", True), ("GNFLOW_API_KEY", True),
        ("MLFLOW_TRACKING_PASSWORD", True),
        ("TOKENIZERS_PARALLELISM", False), ("PATH", False), ("OMP_NUM_THREADS", False), ("KEYBOARD", False),
    ],
)  # fmt: skip
def test_a_secret_variable_is_known_by_its_name(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret


@pytest.mark.parametrize("error", [DataError, RuntimeError])
def test_neither_a_message_nor_a_traceback_shows_one(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(output: object) -> int:
        raise error("opaque-value refused by https://me:hunter2@host/x")

    monkeypatch.setenv("HF_TOKEN", "opaque-value")
    monkeypatch.setenv("PYDANTIC_DISABLE_PLUGINS", "true")
    monkeypatch.setattr("gnflow.commands.schema.print_schema", fail)
    monkeypatch.setattr(sys, "argv", ["gnflow", "schema"])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert "*** refused by https://host/x" in said
    assert "opaque-value" not in said
    assert "hunter2" not in said
