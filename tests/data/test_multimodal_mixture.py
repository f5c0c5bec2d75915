from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from gallery import multimodal

from gnflow.data.multimodal.dataset import MultimodalDataset
from gnflow.data.multimodal.mixture import MixedBatches, count_microbatches, list_held_out_rows, take_held_out
from gnflow.data.multimodal.write import TASKS
from gnflow.data.prepare import prepare
from gnflow.errors import DataError
from gnflow.spec.multimodal import Mix
from gnflow.workspace import Workspace


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> MultimodalDataset:
    return prepare(multimodal("janus"), Workspace(tmp_path_factory.mktemp("mixture")))


def tasks(dataset: MultimodalDataset, numbers: np.ndarray) -> list[Counter[str]]:
    """How many rows of each task each micro-batch has."""
    return [Counter(TASKS[task] for task in dataset.train.tasks[row]) for row in numbers]


@pytest.mark.parametrize("rows", [10, 20, 50])
def test_every_micro_batch_has_the_mix_exactly_when_its_rows_allow(dataset: MultimodalDataset, rows: int) -> None:
    numbers = MixedBatches(dataset.train, rows, Mix(), 0).find_rows(5, 40)
    for counts in tasks(dataset, numbers):
        assert counts == {"understanding": rows // 5, "text": rows * 3 // 10, "generation": rows // 2}


@pytest.mark.parametrize("mix", [Mix(), Mix(understanding=1, text=0, generation=1), Mix(understanding=7, text=3)])
@pytest.mark.parametrize("rows", [1, 3, 8, 32])
def test_any_run_of_micro_batches_has_the_mix_to_within_a_row(dataset: MultimodalDataset, mix: Mix, rows: int) -> None:
    shares = {task: getattr(mix, task) / sum(getattr(mix, each) for each in TASKS) for task in TASKS}
    counts = tasks(dataset, MixedBatches(dataset.train, rows, mix, 0).find_rows(0, 60))
    for first in range(0, 60, 7):
        for last in range(first + 1, 61, 11):
            run = sum(counts[first:last], Counter())
            for task in TASKS:
                # Less than one row too many at the end of the run, and as much at its start.
                assert abs(run[task] - shares[task] * rows * (last - first)) < 2


def test_a_task_without_a_share_never_comes(dataset: MultimodalDataset) -> None:
    numbers = MixedBatches(dataset.train, 8, Mix(understanding=1, text=0, generation=1), 0).find_rows(0, 50)
    assert all(set(counts) == {"understanding", "generation"} for counts in tasks(dataset, numbers))


def test_a_task_that_has_no_rows_is_refused_where_it_is_asked_for(dataset: MultimodalDataset) -> None:
    first = dataset.train.find_rows("understanding").start
    split = replace(dataset.train, ids=dataset.train.ids[first:], tasks=dataset.train.tasks[first:])
    for ask in (
        lambda: MixedBatches(split, 8, Mix(), 0).find_rows(0, 1),
        lambda: count_microbatches(split, 8, Mix()),
    ):
        with pytest.raises(DataError, match=r"data\.mix asks for rows of text, and no caption has any text"):
            ask()
    mix = Mix(understanding=1, text=0, generation=1)
    assert MixedBatches(split, 8, mix, 0).find_rows(0, 1).shape == (1, 8)


def test_micro_batches_are_a_function_of_seed_stream_and_number(dataset: MultimodalDataset) -> None:
    batches = MixedBatches(dataset.train, 8, Mix(), seed=3)
    together = batches.find_rows(0, 30)
    assert np.array_equal(np.concatenate([batches.find_rows(n, 1) for n in range(30)]), together)
    assert np.array_equal(MixedBatches(dataset.train, 8, Mix(), seed=3).find_rows(12, 4), together[12:16])
    assert not np.array_equal(MixedBatches(dataset.train, 8, Mix(), seed=4).find_rows(0, 30), together)
    assert not np.array_equal(MixedBatches(dataset.train, 8, Mix(), 3, "start").find_rows(0, 30), together)


def test_larger_micro_batches_take_the_same_rows(dataset: MultimodalDataset) -> None:
    small = MixedBatches(dataset.train, 4, Mix(), 0).find_rows(0, 24)
    large = MixedBatches(dataset.train, 32, Mix(), 0).find_rows(0, 3)
    assert np.array_equal(small.reshape(-1), large.reshape(-1))


def test_each_epoch_of_a_task_takes_every_row_of_it_once_in_another_order(dataset: MultimodalDataset) -> None:
    rows = dataset.train.find_rows("generation")
    size = rows.stop - rows.start
    numbers = MixedBatches(dataset.train, 10, Mix(), 0).find_rows(0, 2 * size // 5 + 1).reshape(-1)
    own = numbers[dataset.train.tasks[numbers] == TASKS.index("generation")]
    epochs = own[:size], own[size : 2 * size]
    for epoch in epochs:
        assert np.array_equal(np.sort(epoch), np.arange(rows.start, rows.stop))
    assert not np.array_equal(*epochs)


def test_a_micro_batch_holds_the_rows_that_it_names(dataset: MultimodalDataset) -> None:
    batches = MixedBatches(dataset.train, 6, Mix(), 1)
    taken = batches.take(2, 3)
    assert taken.shape == (3, 6, dataset.data.context + 1, dataset.data.channels)
    assert torch.equal(taken, dataset.train.gather(batches.find_rows(2, 3)))
    assert np.array_equal(taken[..., 0].numpy(), dataset.train.ids[batches.find_rows(2, 3)])


def test_held_out_micro_batches_are_the_first_rows_of_each_task_in_order(dataset: MultimodalDataset) -> None:
    found = take_held_out(dataset.held_out, 10, Mix(), 4).reshape(40, -1, dataset.data.channels)
    ids = {tuple(row) for row in found[..., 0].tolist()}
    split = dataset.held_out
    expected = [
        tuple(int(token) for token in split.ids[split.find_rows(task).start + place])
        for task, share in (("understanding", 8), ("text", 12), ("generation", 20))
        for place in range(share)
    ]
    assert ids == set(expected)
    assert torch.equal(take_held_out(split, 10, Mix(), 2), take_held_out(split, 10, Mix(), 4)[:2])


@pytest.mark.parametrize("rows", [1, 8, 10, 32])
def test_no_held_out_row_comes_twice_in_as_many_micro_batches_as_are_whole(
    dataset: MultimodalDataset, rows: int
) -> None:
    count = count_microbatches(dataset.held_out, rows, Mix())
    numbers = list_held_out_rows(dataset.held_out, rows, Mix(), count).reshape(-1)
    assert len(set(numbers.tolist())) == len(numbers)
    more = list_held_out_rows(dataset.held_out, rows, Mix(), count + 10 // rows + 1).reshape(-1)
    assert len(set(more.tolist())) < len(more)
    assert len(dataset.take_held_out(rows, 10**6)) == count
    assert len(dataset.take_held_out(rows, 2)) == 2


def test_the_stream_of_a_data_set_has_its_mix(dataset: MultimodalDataset) -> None:
    found = dataset.make_microbatches(8, 5, "start").take(3, 2)
    assert torch.equal(found, MixedBatches(dataset.train, 8, dataset.data.mix, 5, "start").take(3, 2))
