"""Hide secrets in shown and stored texts: users and passwords in addresses, access tokens, secret variables."""

import os
import re
from collections.abc import Iterator
from urllib.parse import unquote

HIDDEN = "***"
SHORTEST = 6  # characters; a shorter value of a secret variable would be hidden wherever it occurs by chance

_USER = re.compile(r"(?<=://)[^/\s'\"]+@")
_TOKEN = re.compile(r"\b(?:hf|gh[pousr]|github_pat|glpat|sk|dapi)[_-][A-Za-z0-9_-]{16,}")
_QUERY = re.compile(r"(?i)(?<=[?&])((?:access_?|auth_?|api_?)?(?:token|key|secret|password|signature))=[^&#\s'\"]+")
_NAME = re.compile(r"(?i)(?<![a-z])(?:token|secret|pass(?:word|wd)|credentials?|(?:api|access)_?key)(?![a-z])")


def is_secret_name(variable: str) -> bool:
    """Return whether an environment variable of this name holds a secret."""
    return _NAME.search(variable) is not None


def has_secret(text: str) -> bool:
    """Return whether the form of a part of the text shows that it is a secret."""
    return any(form.search(text) for form in (_USER, _TOKEN, _QUERY))


def hide_secrets(text: str) -> str:
    """Return the text without secrets."""
    text = _QUERY.sub(rf"\1={HIDDEN}", _TOKEN.sub(HIDDEN, _USER.sub("", text)))
    for value in sorted(set(_list_secrets()), key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return text


def _list_secrets() -> Iterator[str]:
    """Yield the secrets of the environment, which may occur without the name or the address that they belong to."""
    for name, value in os.environ.items():
        found = [value] if is_secret_name(name) else []
        for user in _USER.findall(value):
            password = user.removesuffix("@").partition(":")[2]
            found += [password, unquote(password)]
        yield from (each for each in found if len(each) >= SHORTEST)
