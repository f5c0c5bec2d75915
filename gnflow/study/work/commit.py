"""Commit finished stages to dvc.lock in one go: `python -m gnflow.study.work.commit FILE STAGE ...`.

`dvc commit` with many stages reads and writes all files again for each of them, which takes a quarter of an hour for a
study with 165 runs.
"""

import sys
from collections.abc import Sequence

from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo


def commit(file: str, names: Sequence[str]) -> None:
    """Save the files of these stages of a dvc.yaml to the cache, and what they are now to dvc.lock.

    Raises DvcException if a stage has no output, or if DVC's lock is held.
    """
    with Repo() as repo, lock_repo(repo):
        found = {stage.name: stage for stage in repo.stage.load_file(file)}
        stages = [found[name] for name in names]
        for stage in stages:
            stage.save()
            stage.commit()
        stages[0].dvcfile.dump_stages(stages, update_pipeline=False)


if __name__ == "__main__":
    try:
        commit(sys.argv[1], sys.argv[2:])
    except DvcException as error:
        sys.exit(str(error))
