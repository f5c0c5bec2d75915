"""Make prepared directories once, each identified by a digest of its inputs."""

import hashlib
import json
import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from gnflow.data import shards
from gnflow.data.sources.corpus import Json
from gnflow.errors import DataError, DiskProblem

Report = Callable[[str], None]


class Made(NamedTuple):
    """A directory, and the digest of the inputs it was made from."""

    directory: Path
    key: str


def make_once(
    label: Path,
    identity: Callable[[], dict[str, Json]],
    write: Callable[[Path], dict[str, Json]],
    report: Report,
) -> Made:
    """Return the directory for this identity. If there is none, `write` fills it. Its name begins with `label`.

    Raises DiskProblem when nothing can be written, DataError when the sources change meanwhile.
    """
    before = identity()
    key = hashlib.sha256(json.dumps(before, sort_keys=True).encode()).hexdigest()
    name = re.sub(r"[^A-Za-z0-9]+", "-", label.name).strip("-")
    directory = label.parent / f"{name}-{key[:12]}"

    def write_whole(partial: Path) -> dict[str, Json]:
        manifest = write(partial)
        if identity() != before:
            raise DataError("the files of data.source changed while they were read\nrun it again")
        return {**manifest, **before, "key": key}

    if not directory.exists():
        report(f"preparing {directory}")
        try:
            shards.make(
                directory, write_whole, lambda: report(f"waiting for another process that prepares {directory}")
            )
        except OSError as error:
            raise DiskProblem(f"{directory} cannot be written: {error.strerror or error}") from error
    return Made(directory, key)


def list_versions(*packages: str) -> dict[str, Json]:
    """List the installed versions of packages, for the manifest."""
    return {package: _find_version(package) for package in packages}


def _find_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
