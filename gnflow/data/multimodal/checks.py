"""Check the rows of a shard: whole images, known ids, the right groups."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gnflow.data.multimodal.sequences import CODE, Rows, Sequences
from gnflow.groups import Task

Marked = NDArray[np.bool_]


class Problem(NamedTuple):
    """A fault: the part of a split, the row in it, and the reason."""

    part: str
    row: int
    reason: str


def find_problem(
    ids: Rows, groups: Rows, patches: Rows | None, task: Task, forms: Sequences, known: int
) -> Problem | None:
    """Find the first fault of rows [rows, length] of one task, whose patches are numbered below `known`."""
    plain = ids.astype(np.int64)
    return (
        _find_first("ids", plain >= forms.text_vocabulary + forms.codebook, "the id {0} at {at} is out of range", plain)
        or _check_samples(plain, task, forms)
        or _check_images(plain, task, forms)
        or _find_first(
            "groups",
            groups != forms.find_groups(plain, task),
            "the group {0} at {at} is not the {1} of this token in a row of " + task,
            groups,
            forms.find_groups(plain, task),
        )
        or (None if patches is None else _check_patches(plain, patches.astype(np.int64), forms, known))
    )


def _check_samples(ids: NDArray[np.int64], task: Task, forms: Sequences) -> Problem | None:
    """Require that each sample runs from BOS to EOS with the images of its task, and that the rest is padding."""
    begin, end, pad, image = (ids == forms.marks[mark] for mark in ("BOS", "EOS", "PAD", "BOI"))
    inside = begin.cumsum(axis=1) - end.cumsum(axis=1) + end
    unended = np.zeros_like(end)
    unended[:, -1] = begin.sum(axis=1) != end.sum(axis=1)
    images = 0 if task == "text" else begin.cumsum(axis=1)
    wanted = "no image" if task == "text" else "one image"
    return (
        _find_first("ids", (inside < 0) | (inside > 1) | ((inside == 0) & ~pad), "a sample is cut at {at}")
        or _find_first("ids", unended, "its last sample does not end")
        or _find_first(
            "ids", end & (image.cumsum(axis=1) != images), "the sample that ends at {at} should have " + wanted
        )
    )


def _check_images(ids: NDArray[np.int64], task: Task, forms: Sequences) -> Problem | None:
    """Require that marks and codes of images stand in whole images."""
    template = forms.make_template(task)
    marks = [forms.marks[mark] for mark in forms.marks if mark not in ("BOS", "EOS", "PAD")]
    wrong = np.isin(ids, marks) | (ids >= forms.text_vocabulary)
    rows, starts = np.nonzero(ids == forms.marks["BOI"])
    fits = starts + len(template) <= ids.shape[1]
    rows, places = rows[fits, None], starts[fits, None] + np.arange(len(template))
    found = ids[rows, places]
    right = np.where(template == CODE, found >= forms.text_vocabulary, found == template)
    wrong[rows, places] = ~right
    return _find_first("ids", wrong, "an image is cut or misplaced at {at}")


def _check_patches(ids: NDArray[np.int64], patches: NDArray[np.int64], forms: Sequences, known: int) -> Problem | None:
    """Require that placeholders, and no other ids, read the patches of whole images."""
    reads = ids == forms.marks["PLACEHOLDER"]
    count = forms.placeholders
    # In a row the k-th placeholder reads the (k mod count)-th patch of its image.
    order = (reads.cumsum(axis=1) - 1) % count
    first = patches - 1 - order
    moved = np.zeros_like(reads)
    moved[:, 1:] = (order[:, 1:] > 0) & (first[:, 1:] != first[:, :-1])
    wrong = np.where(reads, (first % count != 0) | (first < 0) | (patches > known) | moved, patches != 0)
    return _find_first("patches", wrong, "the patch {0} at {at} is not the one that is read here", patches)


def _find_first(part: str, wrong: Marked, reason: str, *values: Rows) -> Problem | None:
    found = np.flatnonzero(wrong.any(axis=1))
    if not len(found):
        return None
    row = int(found[0])
    at = int(np.flatnonzero(wrong[row])[0])
    shown = [value[row, at] for value in values]
    return Problem(part, row, reason.format(*shown, at=f"position {at}"))
