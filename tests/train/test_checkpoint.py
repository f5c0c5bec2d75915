import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from full_disk import no_file_beyond
from rot import flip
from torch import Tensor

from gnflow import trees
from gnflow.compiler.program import State
from gnflow.errors import DiskProblem
from gnflow.train import checkpoint

CPU = torch.device("cpu")


class Moments(NamedTuple):
    count: Tensor
    first: dict[str, Tensor]
    rate: Tensor
    keep: Tensor
    nested: dict[str, tuple[Tensor, Tensor]]


def state(step: int, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(5, 7, generator=generator)
    params = {"blocks.0.weight": weight, "head": torch.randn(3, generator=generator), "empty": torch.zeros(0, 4)}
    optimizer = Moments(
        torch.tensor(step),
        {name: value.clone() for name, value in params.items()},
        torch.tensor(0.1, dtype=torch.float64),
        torch.tensor([True, False]),
        {"factor": (torch.randn(4, 6, generator=generator).T, torch.randn(2, generator=generator).bfloat16())},
    )
    return State(step, params, optimizer)


def template(like: State) -> State:
    return trees.map_tensors(lambda leaf: leaf.to("meta") if isinstance(leaf, Tensor) else leaf, like)


def assert_same(a: State, b: State) -> None:
    assert a.step == b.step
    one, other = trees.name_tensors((a.params, a.optimizer)), trees.name_tensors((b.params, b.optimizer))
    assert list(one) == list(other)
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype, name
        assert torch.equal(tensor, other[name]), name


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    before = state(12)
    before.params["head"][:] = torch.tensor([float("nan"), -0.0, 1e-45])
    path = checkpoint.save(tmp_path, before)
    assert path.name == "step_00000012"
    assert sorted(file.name for file in path.iterdir()) == [
        "manifest.json", "optimizer.safetensors", "params.safetensors", "state.json",
    ]  # fmt: skip
    after = checkpoint.load(path, template(before), CPU)
    assert isinstance(after.optimizer, Moments)
    assert after.params["head"].view(torch.int32).equal(before.params["head"].view(torch.int32))
    before.params["head"].zero_()
    after.params["head"].zero_()
    assert_same(before, after)


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    one, other = (checkpoint.save(tmp_path / name, state(3)) for name in "ab")
    for file in one.iterdir():
        assert file.read_bytes() == (other / file.name).read_bytes()


def test_tensors_that_share_memory_are_kept_apart(tmp_path: Path) -> None:
    whole = torch.arange(12.0)
    before = State(1, {"a": whole, "b": whole[3:7], "c": whole.view(3, 4).T}, {"point": {"a": whole}})
    after = checkpoint.load(checkpoint.save(tmp_path, before), template(before), CPU)
    assert_same(before, after)
    after.params["a"].zero_()
    assert after.optimizer["point"]["a"].equal(torch.arange(12.0))
    assert after.params["b"].equal(torch.arange(3.0, 7.0))


def test_loaded_tensors_are_contiguous_aligned_and_free_of_the_file(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, state(1))
    after = checkpoint.load(path, template(state(1)), CPU)
    shutil.rmtree(path)
    for name, tensor in trees.name_tensors((after.params, after.optimizer)).items():
        assert tensor.is_contiguous(), name
        assert tensor.data_ptr() % 64 == 0, name
        tensor.mul_(2) if tensor.is_floating_point() else tensor.logical_not_()


def test_others_may_read_what_is_saved(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, state(1))
    assert all(stat.S_IMODE(file.stat().st_mode) & 0o044 == 0o044 for file in path.iterdir())


FILES = ["params.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_any_file_is_found_and_the_newest_good_checkpoint_used(tmp_path: Path, name: str) -> None:
    for step in (5, 10, 15):
        checkpoint.save(tmp_path, state(step))
    file = tmp_path / "step_00000015" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)
    found = checkpoint.find_newest(tmp_path)
    assert found.path == tmp_path / "step_00000010"
    assert list(found.damage) == [15]
    # A flipped bit in the manifest may hit a digest, and then accuses the file that the digest is of.
    assert name in found.damage[15] or name == "manifest.json"


def test_a_manifest_cannot_change_unnoticed_anywhere(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, state(5))
    content = (path / "manifest.json").read_bytes()
    for place in range(0, len(content), 3):
        flip(path / "manifest.json", place)
        assert checkpoint.find_damage(path), place
        (path / "manifest.json").write_bytes(content)
    assert checkpoint.find_damage(path) is None
    (path / "manifest.json").write_text("[" * 100_000)
    assert checkpoint.find_damage(path) == "manifest.json is missing or cannot be read"


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_truncated_file_is_named(tmp_path: Path, name: str) -> None:
    path = checkpoint.save(tmp_path, state(5))
    size = (path / name).stat().st_size
    os.truncate(path / name, size - 1)
    assert name in str(checkpoint.find_damage(path)) or name == "manifest.json"
    (path / name).unlink()
    assert name in str(checkpoint.find_damage(path))
    assert checkpoint.find_newest(tmp_path).path is None


def test_a_checkpoint_that_the_journal_does_not_reach_is_passed_over(tmp_path: Path) -> None:
    for step in (5, 10):
        checkpoint.save(tmp_path, state(step))
    found = checkpoint.find_newest(tmp_path, lambda step: step <= 7)
    assert found.path == tmp_path / "step_00000005"
    assert found.damage == {10: "the journal does not reach it"}


def test_a_checkpoint_after_the_step_that_is_asked_for_is_not_said_to_be_damaged(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        checkpoint.save(tmp_path, state(step))
    for step in (10, 15):
        flip(tmp_path / f"step_{step:08d}" / "params.safetensors", -1)
    found = checkpoint.find_newest(tmp_path, up_to=12)
    assert found.path == tmp_path / "step_00000005"
    assert list(found.damage) == [10]
    assert checkpoint.find_newest(tmp_path, up_to=4) == (None, {})


def test_what_a_killed_process_left_is_neither_used_nor_kept(tmp_path: Path) -> None:
    good = checkpoint.save(tmp_path, state(5))
    shutil.copytree(good, tmp_path / ".partial_step_00000010")
    assert checkpoint.find_newest(tmp_path).path == good
    checkpoint.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000005"]


def test_a_damaged_checkpoint_is_replaced_when_its_step_is_saved_again(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, state(5, seed=1))
    (path / "params.safetensors").write_bytes(b"rubbish")
    checkpoint.save(tmp_path, state(5))
    assert [entry.name for entry in tmp_path.iterdir()] == ["step_00000005"]
    assert_same(checkpoint.load(path, template(state(5)), CPU), state(5))
    assert checkpoint.find_damage(path) is None


def test_temporary_checkpoints_go_and_kept_ones_stay(tmp_path: Path) -> None:
    for step in (0, 5, 7, 10, 11):
        checkpoint.save(tmp_path, state(step))
    checkpoint.prune(tmp_path, 11, lambda step: step > 0 and step % 5 == 0)
    assert [checkpoint.read_step(path) for path in checkpoint.list_checkpoints(tmp_path)] == [5, 10, 11]


def test_a_disk_that_fills_up_leaves_the_last_good_checkpoint_and_no_rubbish(tmp_path: Path) -> None:
    good = checkpoint.save(tmp_path, state(5))
    large = State(6, {"weight": torch.zeros(1_000)}, {"momentum": torch.zeros(10_000)})
    for limit in (0, 100, 3_000, 20_000):  # in the first file, and in the second
        with no_file_beyond(limit), pytest.raises(DiskProblem, match="cannot be written"):
            checkpoint.save(tmp_path, large)
        assert list(tmp_path.iterdir()) == [good]
        assert checkpoint.find_newest(tmp_path).path == good
    assert DiskProblem.exit_code == 8
    checkpoint.save(tmp_path, large)


def test_too_little_room_is_noticed_before_anything_is_written(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    huge = State(1, {"weight": torch.zeros(1).expand(free // 4 + 1)}, {})
    with pytest.raises(DiskProblem, match=r"needs [\d,]+ bytes"):
        checkpoint.save(tmp_path, huge)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s._replace(params={**s.params, "new": torch.zeros(1)}), "lacks `new`"),
        (lambda s: s._replace(params={n: v for n, v in s.params.items() if n != "head"}), "unknown `head`"),
        (lambda s: s._replace(params={**s.params, "head": torch.zeros(4)}), r"`head` is torch.float32 \(3,\), not"),
        (lambda s: s._replace(optimizer=s.optimizer._replace(count=torch.tensor(1.0))), "`count` is torch.int64"),
    ],
)
def test_a_state_of_another_form_is_refused_by_name(
    tmp_path: Path, change: Callable[[State], State], message: str
) -> None:
    path = checkpoint.save(tmp_path, state(5))
    with pytest.raises(DiskProblem, match=message):
        checkpoint.load(path, template(change(state(5))), CPU)


def test_the_manifest_holds_sizes_and_digests(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, state(5))
    files = json.loads((path / "manifest.json").read_text())["files"]
    assert sorted(files) == ["optimizer.safetensors", "params.safetensors", "state.json"]
    assert files["state.json"]["bytes"] == (path / "state.json").stat().st_size
    assert len(files["state.json"]["sha256"]) == 64


def test_tensors_beside_one_another_in_memory_are_written_without_a_copy_and_those_that_overlap_with_one():
    whole = torch.arange(12.0)
    named = {
        "first": whole[:6],
        "second": whole[6:],
        "over": whole[4:8],
        "again": whole[:6],
        "rows": whole.view(3, 4).T,
    }
    stored = checkpoint._copy_shared(named)
    assert all(torch.equal(stored[name], tensor) for name, tensor in named.items())
    own = {name for name, tensor in stored.items() if tensor.data_ptr() != named[name].data_ptr()}
    assert own == {"over", "again", "rows"}
