"""Commit finished stages to dvc.lock in one go: `python -m gnflow.study.work.commit FILE STAGE ...`.

`dvc commit` reads dvc.yaml and writes dvc.lock again for each of its targets, which takes a quarter of an hour for a
study with 165 runs. The library of DVC writes once for any number of stages.
"""

import sys
from collections.abc import Sequence

from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo


def commit(file: str, names: Sequence[str]) -> None:
    """Save the files of these stages of a dvc.yaml to the cache, and what they are now to dvc.lock.

    Raises DvcException if an output is missing, if the file lacks a stage, or if DVC's lock is held. The stages before
    the one at fault are in dvc.lock then.
    """
    with Repo() as repo, lock_repo(repo):
        found = {stage.name: stage for stage in repo.stage.load_file(file)}
        saved = []
        try:
            for name in names:
                if name not in found:
                    raise DvcException(f"{file} has no stage `{name}`; `gnflow study pipeline` writes it again")
                found[name].save()
                found[name].commit()
                saved.append(found[name])
        finally:
            if saved:
                saved[0].dvcfile.dump_stages(saved, update_pipeline=False)


if __name__ == "__main__":
    try:
        commit(sys.argv[1], sys.argv[2:])
    except DvcException as error:
        sys.exit(str(error))
