"""The tools whose settings can be read."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from gnflow.spec.like import nanogpt, pretrained
from gnflow.spec.like.draft import Draft


class Reader(NamedTuple):
    """How to read the settings of one tool."""

    title: str
    read: Callable[[Path, Path], Draft]
    """A function of (file or directory, root of the project)."""
    choose_name: Callable[[Path], str]


READERS: Mapping[str, Reader] = {
    "nanogpt": Reader("nanoGPT", lambda file, root: Draft.collect(nanogpt.read_nanogpt(file)), nanogpt.choose_name),
    "huggingface": Reader(
        "Hugging Face",
        lambda directory, root: Draft.collect(pretrained.read_pretrained(directory, root)),
        lambda directory: directory.resolve().name,
    ),
}
