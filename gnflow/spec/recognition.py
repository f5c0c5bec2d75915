"""Recognise a file or folder of the project that was given in place of another, and say which command takes it."""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from gnflow.spec.problems import Problem, SpecProblems, shorten_path
from gnflow.spec.source import parse, read
from gnflow.spec.tree import Origin, Source, Table
from gnflow.workspace import STUDY

A_SPEC, A_STUDY, A_RUN = "a spec", "a study", "a run"
_YAML = (".yaml", ".yml")
_OF_A_SPEC = {"extends", "data", "optimizer", "training"}
_OF_A_STUDY = {"seeds", "targets", "budget", "scales", "reference"}
_LLM_C = (20240520).to_bytes(4, "little")  # the beginning of every shard of llm.c
LONGEST = 50_000  # bytes of a file whose keys are read to recognise it
_RUN, _MODEL, _SHARDS = "experiment.yaml", "config.json", "manifest.json"


class Recognized(NamedTuple):
    """A description of a file or folder, and advice that names the command which takes it."""

    what: str
    advice: str


def recognize(path: Path, keys: Collection[str] | None = None) -> Recognized | None:
    """Say what a file or folder is, by its keys, its content and the files beside it; None if none of them tells.

    `keys` are those of the mapping in the file. Default: they are read.
    """
    try:
        if path.is_dir():
            return _recognize_folder(path)
        if not path.is_file():
            return None
        found = _recognize_keys(path, _read_keys(path) if keys is None else keys)
        return found or _recognize_content(path) or _recognize_place(path)
    except (OSError, ValueError):
        return None


def refuse_other(path: Path, wanted: str, keys: Collection[str] | None = None) -> None:
    """Raise SpecProblems if the file or folder is recognised, but not as `wanted`, such as a spec."""
    found = recognize(path, keys)
    if found and found.what != wanted:
        message = f"this is {found.what}, not {wanted}; {found.advice}"
        raise SpecProblems([Problem(Origin(Source(shorten_path(path))), message)])


def _read_keys(path: Path) -> Collection[str]:
    # Such a file has usually been parsed once already, in vain. A long one takes a second each time.
    if path.stat().st_size > LONGEST:
        return ()
    try:
        tree = parse(read(path, path.name), [])
    except SpecProblems:
        return ()
    return tree.entries.keys() if isinstance(tree, Table) else ()


def _recognize_folder(folder: Path) -> Recognized | None:
    shown = shorten_path(folder)
    if (folder / _RUN).is_file():
        return Recognized(A_RUN, _recommend_show(folder))
    if (folder / STUDY).is_file():
        return _describe_study(folder)
    if (folder / _MODEL).is_file():
        return Recognized(
            "a model of transformers",
            f"a spec trains it with `model: {{kind: huggingface, path: {shown}}}`, and "
            f"`gnflow new NAME --like huggingface {shown}` writes a spec of its shape",
        )
    if (folder / _SHARDS).is_file() and any(folder.glob("*.npy")):
        return Recognized("prepared data", "`gnflow run` finds it by itself; give the spec that it was prepared for")
    if runs := sorted(each.parent for each in folder.glob(f"*/{_RUN}")):
        return Recognized("a folder of runs", f"give a run in it, such as {shorten_path(runs[0])}")
    if studies := sorted(each.parent for each in folder.glob(f"*/{STUDY}")):
        return Recognized("a folder of studies", f"give a study in it, such as {shorten_path(studies[0])}")
    return None


def _describe_study(folder: Path) -> Recognized:
    shown = shorten_path(folder)
    return Recognized(
        A_STUDY,
        f"`gnflow check {shown}` checks it, `gnflow study plan {shown}` shows its runs and their cost, and "
        f"`gnflow study work {shown}` runs them",
    )


def _recognize_keys(path: Path, keys: Collection[str]) -> Recognized | None:
    shown, found = shorten_path(path), set(keys)
    of_a_study = path.suffix in _YAML and ("arms" in found or len(found & _OF_A_STUDY) > 1)
    if {"schema", "stages"} <= found:
        return Recognized("the lock file of DVC", f"`dvc repro {shorten_path(path.with_name('dvc.yaml'))}` uses it")
    if "stages" in found:
        return Recognized("a pipeline of DVC", f"`dvc repro {shown}` runs it")
    if found == {"arms"} and path.name == "widened.yaml":
        return Recognized("the list of trials that were added to a study", "give the folder of the study")
    if of_a_study and not found & _OF_A_SPEC:
        return _describe_study(path if path.name != STUDY else path.parent)
    if {"optimizer", "extends"} & found and not of_a_study:
        return Recognized(
            A_SPEC, f"`gnflow plan {shown}` shows what its run does and costs, and `gnflow run {shown}` trains"
        )
    return None


def _recognize_content(path: Path) -> Recognized | None:
    with path.open("rb") as file:
        head = file.read(512)
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return Recognized("a web page", "open it in a browser")
    if head.startswith(_LLM_C) or (head.startswith(b"\x93NUMPY") and not path.with_name(_SHARDS).is_file()):
        return Recognized("a file of tokens", "a spec reads it with `data: {source: {kind: tokens, train: FILE, ..}}`")
    if path.suffix == ".py":
        command = f"gnflow new NAME --like nanogpt {shorten_path(path)}"
        return Recognized("a Python program", f"`{command}` turns a config of nanoGPT into a spec")
    return None


def _recognize_place(path: Path) -> Recognized | None:
    """Recognise a file by the files beside it. A YAML file may be anywhere."""
    if path.suffix in _YAML:
        return None
    for folder in path.resolve().parents[:3]:
        if (folder / _RUN).is_file():
            return Recognized(f"a file of the run {shorten_path(folder)}", _recommend_show(folder))
    found = _recognize_folder(path.parent)
    if found is None or found.what.startswith("a folder"):
        return None
    return Recognized(f"a file of {found.what}", found.advice)


def _recommend_show(run: Path) -> str:
    shown = shorten_path(run)
    return f"`gnflow show {shown}` shows the run, and its spec is {shorten_path(run / _RUN)}"
