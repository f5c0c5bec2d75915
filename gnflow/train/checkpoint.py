"""Checkpoints: one directory for each step, complete or absent, whose digests are checked when it is read.

    checkpoints/step_00000012/{params,optimizer}.safetensors state.json manifest.json

With `average.safetensors` where the run keeps an average of its weights; `state.json` says of how many steps. If
updates are made by parts, `optimizer.part:NAME.safetensors` has the state of each part. The process that owns the part
writes this file, and any number of processes reads it.

Made under a temporary name, every file synced, the manifest written last, then renamed.
"""

import json
import math
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias
from urllib.parse import quote

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gnflow import faults, trees
from gnflow.compiler.average import Average
from gnflow.compiler.program import State
from gnflow.crew import ALONE, Crew
from gnflow.data.digests import hash_file
from gnflow.errors import DiskProblem
from gnflow.optim.by_part import PREFIX, find_part
from gnflow.train import disk

PARAMS, OPTIMIZER, STATE, MANIFEST = "params.safetensors", "optimizer.safetensors", "state.json", "manifest.json"
AVERAGE = "average.safetensors"
PART = f"optimizer.{PREFIX}"
PARTIAL = ".partial_"
FORMAT = 1
Files: TypeAlias = dict[str, dict[str, object]]
"""File -> its size and its SHA-256 digest."""


class Found(NamedTuple):
    """The newest good checkpoint, and the damage of newer ones."""

    path: Path | None
    damage: dict[int, str]
    """Maps a step to the damage of its checkpoint."""


def make_path(parent: Path, step: int) -> Path:
    """Return the path of the checkpoint of a step."""
    return parent / f"step_{step:08d}"


def read_step(path: Path) -> int:
    """Return the step after which a checkpoint was taken."""
    return int(path.name.removeprefix("step_"))


def list_checkpoints(parent: Path) -> list[Path]:
    """List all checkpoints, good or damaged, in the order of steps."""
    found = parent.iterdir() if parent.is_dir() else ()
    return sorted((path for path in found if re.fullmatch(r"step_\d{8,}", path.name)), key=read_step)


def save(parent: Path, state: State, crew: Crew = ALONE) -> Path:
    """Write the checkpoint of `state.step`, or replace it. Raises DiskProblem; older checkpoints survive that.

    All processes of `crew` call it. Each one writes the parts that it owns, and process 0 all else.
    """
    path = make_path(parent, state.step)
    partial = path.with_name(PARTIAL + path.name)
    shared = {PARAMS: trees.name_tensors(state.params), **_divide_by_file(trees.name_tensors(state.optimizer))}
    about = {"format": FORMAT, "step": state.step}
    if state.average is not None:
        shared[AVERAGE], about["averaged"] = state.average.params, state.average.steps
    own = {name: shared.pop(name) for name in tuple(shared) if name.startswith(PART)}
    size = sum(crew.collect(_count_bytes(own))) + _count_bytes(shared)
    try:
        crew.lead(lambda: _begin(path, partial, size))
        files: Files = crew.run_first(lambda: _write_files(path, partial, shared), dict)
        parts = {name: about for each in crew.collect(_write_files(path, partial, own)) for name, about in each.items()}
        files |= dict(sorted(parts.items()))
        crew.lead(lambda: _finish(path, partial, about, files))
    finally:
        if crew.leads:
            sweep(parent)
    return path


def _begin(path: Path, partial: Path, size: int) -> None:
    with disk.guard_write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        _require_room(path.parent, size)
        partial.mkdir()
        faults.pass_point("checkpoint.before_write")


def _write_files(path: Path, partial: Path, tensors: Mapping[str, Mapping[str, Tensor]]) -> Files:
    """Write the tensors of each file and return what the manifest says of it."""
    with disk.guard_write(path):
        for name, named in tensors.items():
            file = partial / name
            save_file(_copy_shared(named), file, metadata={"format": "pt"})
            faults.pass_point("checkpoint.in_file", lambda: os.truncate(file, file.stat().st_size // 2))  # noqa: B023
            file.chmod(0o644)  # safetensors makes files that only the owner may read
            disk.sync(file)
            faults.pass_point("checkpoint.after_file")
        return _describe(partial, *tensors)


def _finish(path: Path, partial: Path, about: Mapping[str, object], files: Files) -> None:
    with disk.guard_write(path):
        disk.write_json(partial / STATE, about)
        disk.write(partial / MANIFEST, _format_manifest({**files, **_describe(partial, STATE)}))
        faults.pass_point("checkpoint.after_write")
        if path.exists():
            path.rename(partial.with_name(PARTIAL + "replaced"))
            faults.pass_point("checkpoint.after_removal")
        partial.rename(path)
        faults.pass_point("checkpoint.after_rename")
        disk.sync(path.parent)
        faults.pass_point("checkpoint.after_sync")


def load(path: Path, template: State, device: torch.device) -> State:
    """Read the state of a checkpoint whose digests were checked. Raises DiskProblem if it does not fit the template."""
    # Cloned, since a view into the file may not be aligned like torch's own tensors, and kernels may round differently.
    try:
        about = json.loads((path / STATE).read_bytes())
        params = trees.clone(load_file(path / PARAMS, device=str(device)))
        _require_form(PARAMS, params, trees.name_tensors(template.params))
        optimizer: dict[str, Tensor] = {}
        for file, wanted in _divide_by_file(trees.name_tensors(template.optimizer)).items():
            part = trees.clone(load_file(path / file, device=str(device)))
            _require_form(file, part, wanted)
            optimizer |= part
        average = None
        if template.average is not None:
            found = trees.clone(load_file(path / AVERAGE, device=str(device)))
            _require_form(AVERAGE, found, template.average.params)
            average = Average(trees.pick(found, template.average.params), about["averaged"])
        step = about["step"]
    except (SafetensorError, OSError, LookupError, ValueError) as error:
        raise DiskProblem(
            f"{path} cannot be used, though its digests are right: {error}. "
            "It was written by another version of gnflow; `--fresh` starts the run again"
        ) from error
    return State(
        step,
        trees.fill_tensors(template.params, params),
        trees.fill_tensors(template.optimizer, optimizer),
        average,
    )


def count_averaged(path: Path) -> int:
    """Return the number of steps that the average in a good checkpoint covers; 0 if there is no average yet."""
    return int(json.loads((path / STATE).read_bytes()).get("averaged", 0))


def find_newest(parent: Path, usable: Callable[[int], bool] = lambda step: True, up_to: float = math.inf) -> Found:
    """Find the newest checkpoint among the `usable` steps, none later than `up_to`, whose files match their digests."""
    damage: dict[int, str] = {}
    for path in reversed(list_checkpoints(parent)):
        step = read_step(path)
        if step > up_to:
            continue
        problem = find_damage(path) if usable(step) else "the journal does not reach it"
        if problem is None:
            return Found(path, damage)
        damage[step] = problem
    return Found(None, damage)


def seal(directory: Path, *names: str) -> None:
    """Write the manifest with the size and SHA-256 digest of each named file. Raises DiskProblem."""
    disk.write(directory / MANIFEST, _format_manifest(_describe(directory, *names)))


def _describe(directory: Path, *names: str) -> Files:
    return {name: {"bytes": (directory / name).stat().st_size, "sha256": hash_file(directory / name)} for name in names}


def find_damage(directory: Path) -> str | None:
    """Describe the damage of a sealed directory and name the file; None if every file matches the manifest."""
    try:
        content = (directory / MANIFEST).read_bytes()
        named = json.loads(content)["files"]
        files = {str(name): (entry["bytes"], entry["sha256"]) for name, entry in named.items()}
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is missing or cannot be read"
    if content != _format_manifest(named):
        return f"{MANIFEST} is not as it was written"
    for name, (size, digest) in files.items():
        file = directory / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size:,} bytes, not {size:,}"
        if hash_file(file) != digest:
            return f"{name} does not match its SHA-256 digest"
    return None


def _format_manifest(files: Mapping[str, object]) -> bytes:
    return (json.dumps({"format": FORMAT, "files": files}, indent=2) + "\n").encode()


def prune(parent: Path, newest_step: int, kept: Callable[[int], bool]) -> None:
    """Remove temporary checkpoints (those not `kept`) that are older than the newest. Kept ones are never removed."""
    for path in list_checkpoints(parent):
        if read_step(path) < newest_step and not kept(read_step(path)):
            doomed = path.with_name(PARTIAL + path.name)
            path.rename(doomed)
            faults.pass_point("checkpoint.in_prune")
            shutil.rmtree(doomed, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Remove files that a killed process left half-written."""
    for path in parent.glob(PARTIAL + "*"):
        shutil.rmtree(path, ignore_errors=True)


def _divide_by_file(named: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Divide the tensors of an optimizer's state among files."""
    files: dict[str, dict[str, Tensor]] = {OPTIMIZER: {}}
    for name, tensor in named.items():
        part = find_part(name)
        file = OPTIMIZER if part is None else f"optimizer.{quote(part, safe=':')}.safetensors"
        files.setdefault(file, {})[name] = tensor
    return files


def _count_bytes(tensors: Mapping[str, Mapping[str, Tensor]]) -> int:
    return sum(tensor.nbytes for named in tensors.values() for tensor in named.values())


def _copy_shared(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Move tensors to the CPU, contiguous. Those that overlap are copied, since safetensors refuses them."""
    seen: dict[int, list[tuple[int, int]]] = defaultdict(list)
    stored: dict[str, Tensor] = {}
    for name, tensor in named.items():
        here = tensor.detach().cpu().contiguous()
        begin, end = here.data_ptr(), here.data_ptr() + here.nbytes
        ranges = seen[here.untyped_storage().data_ptr()]
        overlaps = any(begin < other_end and other_begin < end for other_begin, other_end in ranges)
        ranges.append((begin, end))
        stored[name] = here.clone() if overlaps else here
    return stored


def _require_form(file: str, tensors: dict[str, Tensor], template: dict[str, Tensor]) -> None:
    for name in template.keys() | tensors.keys():
        if name not in tensors:
            raise ValueError(f"{file} lacks `{name}`")
        if name not in template:
            raise ValueError(f"{file} holds an unknown `{name}`")
        wanted, found = template[name], tensors[name]
        if (wanted.shape, wanted.dtype) != (found.shape, found.dtype):
            expected = f"{wanted.dtype} {tuple(wanted.shape)}"
            raise ValueError(f"{file}: `{name}` is {found.dtype} {tuple(found.shape)}, not {expected}")


def _require_room(parent: Path, size: int) -> None:
    free = shutil.disk_usage(parent).free
    needed = size + (1 << 16)
    if free < needed:
        raise DiskProblem(
            f"a checkpoint needs {needed:,} bytes, but {parent} has only {free:,} left. Earlier checkpoints are safe; "
            "free some space, and the same command resumes"
        )
