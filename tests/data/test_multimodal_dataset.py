"""Shards of both styles: what is written comes back, and what does not fit is refused with its file and row."""

import json
import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from corpora import prose
from gallery import STYLES, multimodal, reopened, rewritten

from gnflow.data.multimodal import digits, vq
from gnflow.data.multimodal.dataset import MultimodalDataset
from gnflow.data.multimodal.samples import Captioned
from gnflow.data.multimodal.split import Split
from gnflow.data.prepare import prepare
from gnflow.errors import DataError
from gnflow.groups import Task
from gnflow.workspace import Workspace


@pytest.fixture(scope="module", params=STYLES)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MultimodalDataset:
    return prepare(multimodal(request.param), Workspace(tmp_path_factory.mktemp(request.param)))


@pytest.fixture
def copy(whole: MultimodalDataset, tmp_path: Path) -> MultimodalDataset:
    """One to damage."""
    shutil.copytree(whole.root, tmp_path, dirs_exist_ok=True)
    return prepare(whole.data, Workspace(tmp_path))


def samples(whole: MultimodalDataset, split: str) -> list[Captioned]:
    return list(getattr(digits.open_gallery(whole.data.source, whole.data.variant), split).read())


def stream(split: Split, task: Task) -> np.ndarray:
    return np.asarray(split.ids[split.find_rows(task)])


def refusal(dataset: MultimodalDataset) -> str:
    with pytest.raises(DataError) as caught:
        reopened(dataset)
    message = str(caught.value)
    assert message.endswith(f"\ndelete the directory {dataset.directory}; it is made again when it is next needed")
    return message.splitlines()[0]


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_the_images_of_a_stream_are_the_quantised_images(whole: MultimodalDataset, split: str) -> None:
    images = np.stack([sample.image for sample in samples(whole, split)])
    codebook = np.load(whole.directory / "codebook.npy")
    quantised = vq.decode(vq.encode(images, codebook, 2), codebook, (8, 8, 1), 2)
    rows = getattr(whole, split)
    assert np.array_equal(whole.decode_images(stream(rows, "generation")), quantised)
    if whole.data.style == "emu3":
        assert np.array_equal(whole.decode_images(stream(rows, "understanding")), quantised)
    else:
        numbers = np.arange(*rows.find_rows("understanding").indices(len(rows.ids)))
        assert np.array_equal(whole.restore_images(rows.gather(numbers)), images)


def test_the_captions_of_a_stream_are_those_of_the_source(whole: MultimodalDataset) -> None:
    captions = [sample.caption for sample in samples(whole, "held_out")]
    for task in ("text", "understanding", "generation"):
        assert whole.decode_texts(stream(whole.held_out, task)) == captions


def test_a_tenth_of_the_training_prompts_is_dropped_and_no_other(whole: MultimodalDataset) -> None:
    captions = [sample.caption for sample in samples(whole, "train")]
    found = whole.decode_texts(stream(whole.train, "generation"))
    assert 0.07 < found.count("") / len(found) < 0.13
    assert all(text in ("", caption) for text, caption in zip(found, captions, strict=True))
    assert whole.decode_texts(stream(whole.train, "understanding")) == captions


def test_each_row_begins_a_sample_and_holds_whole_ones(whole: MultimodalDataset) -> None:
    marks = whole.sequences.marks
    for split in (whole.train, whole.held_out):
        assert (split.ids[:, 0] == marks["BOS"]).all()
        assert np.array_equal((split.ids == marks["BOS"]).sum(axis=1), (split.ids == marks["EOS"]).sum(axis=1))
        assert (np.diff(split.tasks.astype(int)) >= 0).all()
        assert (split.groups[split.ids == marks["PAD"]] == 0).all()


def test_a_row_has_room_for_no_sample_of_the_next_one(whole: MultimodalDataset) -> None:
    pad = whole.sequences.marks["PAD"]
    ids = stream(whole.train, "text")
    for row, following in pairwise(ids):
        first = 1 + int(np.flatnonzero(following == whole.sequences.marks["EOS"])[0])
        assert (row == pad).sum() < first


def test_the_manifest_tells_the_error_on_held_out_images(whole: MultimodalDataset) -> None:
    images = np.stack([sample.image for sample in samples(whole, "held_out")])
    error = whole.codec.decode(whole.codec.encode(images)).astype(float) - images
    assert whole.reconstruction.error == pytest.approx(np.sqrt((error**2).mean()))
    assert whole.reconstruction.images == 359
    assert 15 < whole.reconstruction.error < 25


def test_a_batch_carries_ids_groups_and_pixels(whole: MultimodalDataset) -> None:
    numbers = np.array([[0, len(whole.train.ids) - 1], [3, 950]])
    found = whole.train.gather(numbers).numpy()
    assert found.shape == (2, 2, whole.data.context + 1, whole.data.channels)
    assert found.dtype == np.int64
    assert np.array_equal(found[..., 0], whole.train.ids[numbers])
    assert np.array_equal(found[..., 1], whole.train.groups[numbers])
    if whole.data.style == "janus":
        assert not found[found[..., 0] != whole.sequences.marks["PLACEHOLDER"]][:, 2:].any()


def test_it_is_made_again_with_the_same_digest_and_the_mix_is_no_part_of_it(
    whole: MultimodalDataset, tmp_path: Path
) -> None:
    again = prepare(whole.data, Workspace(tmp_path))
    assert again.digest == whole.digest
    mixed = whole.data.model_copy(update={"mix": whole.data.mix.model_copy(update={"text": 0})})
    assert prepare(mixed, Workspace(whole.root)).directory == whole.directory


@pytest.mark.parametrize("name", ["train.ids.npy", "held_out.groups.npy", "train.tasks.npy", "codebook.npy"])
def test_a_flipped_bit_is_found_and_its_file_named(copy: MultimodalDataset, name: str) -> None:
    path = copy.directory / name
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert refusal(copy).startswith(f"{path} is damaged: its SHA-256 is")


@pytest.mark.parametrize("content", ["", "{}", '{"key": "x", "format": 1}'])
def test_a_damaged_manifest_is_named(copy: MultimodalDataset, content: str) -> None:
    path = copy.directory / "manifest.json"
    path.write_text(content)
    assert refusal(copy).startswith(f"{path} is damaged")


def test_a_code_out_of_range_is_refused(copy: MultimodalDataset) -> None:
    row = copy.train.find_rows("generation").start + 7
    at = int(np.flatnonzero(copy.train.ids[row] >= copy.data.text_vocabulary)[3])

    def change(ids: np.ndarray) -> None:
        ids[row, at] = copy.vocabulary

    path = rewritten(copy, "train.ids.npy", change)
    assert refusal(copy) == f"{path} is damaged: row {row}: the id {copy.vocabulary} at position {at} is out of range"


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_a_cut_image_is_refused(copy: MultimodalDataset, split: str) -> None:
    rows = getattr(copy, split)
    row = rows.find_rows("generation").stop - 2
    pad, last = copy.sequences.marks["PAD"], int(np.flatnonzero(rows.ids[row] >= copy.data.text_vocabulary)[-1])

    def change(ids: np.ndarray) -> None:
        # The last code is gone, and what follows moves up.
        ids[row, last:-1] = ids[row, last + 1 :].copy()
        ids[row, -1] = pad

    path = rewritten(copy, f"{split}.ids.npy", change)
    assert refusal(copy).startswith(f"{path} is damaged: row {row}: an image is cut or misplaced at position {last}")


def test_an_image_that_the_row_has_no_room_for_is_refused(copy: MultimodalDataset) -> None:
    row, marks = copy.train.find_rows("generation").start, copy.sequences.marks

    def change(ids: np.ndarray) -> None:
        # The sample moves to the right until its image does not fit.
        begins = int(np.flatnonzero(ids[row] == marks["BOI"])[0])
        late = np.full_like(ids[row], 5)
        late[0], late[-1] = marks["BOS"], marks["EOS"]
        late[36:-1] = ids[row, begins : begins + len(late) - 37]
        ids[row] = late

    path = rewritten(copy, "train.ids.npy", change)
    assert refusal(copy) == f"{path} is damaged: row {row}: an image is cut or misplaced at position 36"


@pytest.mark.parametrize("task", ["text", "understanding", "generation"])
def test_a_wrong_mask_is_refused(copy: MultimodalDataset, task: Task) -> None:
    row = copy.held_out.find_rows(task).start + 5
    at = int(np.flatnonzero(copy.held_out.groups[row])[-1])
    was = int(copy.held_out.groups[row, at])

    def change(groups: np.ndarray) -> None:
        groups[row, at] = 0

    path = rewritten(copy, "held_out.groups.npy", change)
    assert refusal(copy) == (
        f"{path} is damaged: row {row}: the group 0 at position {at} is not the {was} of this token in a row of {task}"
    )


def test_a_row_of_another_task_is_refused(copy: MultimodalDataset) -> None:
    row = copy.train.find_rows("understanding").stop - 1

    def change(tasks: np.ndarray) -> None:
        tasks[row] = 2

    rewritten(copy, "train.tasks.npy", change)
    assert f"row {row}: " in refusal(copy)


def test_tasks_out_of_order_are_refused(copy: MultimodalDataset) -> None:
    def change(tasks: np.ndarray) -> None:
        tasks[3] = 1

    path = rewritten(copy, "train.tasks.npy", change)
    assert refusal(copy) == f"{path} is damaged: row 3: task 1 is out of order"


@pytest.mark.parametrize(
    ("mark", "which", "problem"),
    [
        ("BOS", 0, "a sample is cut at position 0"),
        ("BOS", 1, "a sample is cut at position"),
        ("EOS", 0, "a sample is cut at position"),
        ("EOS", -1, "its last sample does not end"),
    ],
)
def test_a_sample_without_its_ends_is_refused(copy: MultimodalDataset, mark: str, which: int, problem: str) -> None:
    row = copy.train.find_rows("text").start + 2

    def change(ids: np.ndarray) -> None:
        ids[row, np.flatnonzero(ids[row] == copy.sequences.marks[mark])[which]] = 7

    path = rewritten(copy, "train.ids.npy", change)
    assert refusal(copy).startswith(f"{path} is damaged: row {row}: {problem}")


def test_a_sample_that_lost_its_image_is_refused(copy: MultimodalDataset) -> None:
    row = copy.train.find_rows("understanding").start + 2
    words = np.concatenate(
        [copy.sequences.make_text(words) for words in copy.sequences.find_words(copy.train.ids[row])]
    )

    def change(ids: np.ndarray) -> None:
        ids[row] = copy.sequences.marks["PAD"]
        ids[row, : len(words)] = words

    path = rewritten(copy, "train.ids.npy", change)
    assert refusal(copy).startswith(f"{path} is damaged: row {row}: the sample that ends at position")


def test_an_image_in_a_row_of_text_is_refused(copy: MultimodalDataset) -> None:
    def change(ids: np.ndarray) -> None:
        ids[4, 1] = copy.data.text_vocabulary

    path = rewritten(copy, "train.ids.npy", change)
    assert refusal(copy) == f"{path} is damaged: row 4: an image is cut or misplaced at position 1"


def test_rows_of_another_length_are_refused(copy: MultimodalDataset) -> None:
    path = copy.directory / "train.groups.npy"
    np.save(path, np.load(path)[:-1])
    rewritten(copy, "train.groups.npy", lambda groups: None)
    assert f"{path} is damaged: its shape is" in refusal(copy)


def test_a_patch_of_another_image_or_none_is_refused(copy: MultimodalDataset) -> None:
    if copy.data.style == "emu3":
        assert not list(copy.directory.glob("*.patches.npy"))
        return
    row = copy.train.find_rows("understanding").start + 9
    known = len(copy.train.pixels)
    original = np.load(copy.directory / "train.patches.npy")
    for at, number in ((4, 1), (4, 0), (2, known + 1), (0, 3)):

        def change(patches: np.ndarray, at: int = at, number: int = number) -> None:
            patches[:] = original
            patches[row, at] = number

        path = rewritten(copy, "train.patches.npy", change)
        problem = refusal(copy)
        assert problem.startswith(f"{path} is damaged: row {row}: the patch"), (at, number, problem)


@pytest.mark.parametrize("style", STYLES)
def test_a_context_too_short_for_a_sample_says_what_it_takes(style: str, tmp_path: Path) -> None:
    least = {"emu3": 30, "janus": 22}[style]
    with pytest.raises(DataError, match=r"data\.context is \d+, but the longest sample") as caught:
        prepare(multimodal(style, context=least), Workspace(tmp_path))
    needed = int(str(caught.value).partition("set data.context to ")[2].partition(" ")[0])
    with pytest.raises(DataError):
        prepare(multimodal(style, context=needed - 1), Workspace(tmp_path))
    dataset = prepare(multimodal(style, context=needed), Workspace(tmp_path))
    assert (np.asarray(dataset.train.ids[:, -1]) != dataset.sequences.marks["PAD"]).any()


def test_the_manifest_counts_rows_and_tokens(whole: MultimodalDataset) -> None:
    manifest = json.loads((whole.directory / "manifest.json").read_text())
    counts = manifest["splits"]["train"]
    assert counts["samples"] == 1438
    assert counts["tokens"] == int((np.asarray(whole.train.ids) != whole.sequences.marks["PAD"]).sum())
    assert [counts[task] for task in ("text", "understanding", "generation")] == np.bincount(whole.train.tasks).tolist()


def test_rows_of_text_may_come_from_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(prose(900))
    (tmp_path / "b.txt").write_text(short := prose(12, seed=1))
    source = {"kind": "files", "paths": ["a.txt"], "held_out": ["b.txt"]}
    data = multimodal("emu3", text=source, tokenizer={"kind": "bpe", "vocabulary": 400})
    dataset = prepare(data, Workspace(tmp_path))
    ids = stream(dataset.train, "text")
    assert "".join(dataset.decode_texts(ids)) == prose(900)
    # A document is longer than a row: all rows but the last are full.
    assert (ids[:-1] != dataset.sequences.marks["PAD"]).all()
    assert "".join(dataset.decode_texts(stream(dataset.held_out, "text"))) == short
    assert all(
        digits.find_label(text) is not None for text in dataset.decode_texts(stream(dataset.train, "understanding"))
    )
    (tmp_path / "a.txt").write_text(prose(901))
    assert prepare(data, Workspace(tmp_path)).directory != dataset.directory
    (tmp_path / "b.txt").write_text("")
    with pytest.raises(DataError, match=r"nothing in the held-out part of data\.text"):
        prepare(data, Workspace(tmp_path))
