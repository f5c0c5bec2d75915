import gzip
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from gnflow.data.multimodal import digits
from gnflow.data.multimodal.samples import Captioned, Images
from gnflow.errors import DataError, EnvironmentProblem
from gnflow.spec.multimodal import Digits


def captioned(images: Images) -> list[Captioned]:
    return list(images.read())


def test_the_images_are_scikit_learns_at_255_levels_and_the_last_fifth_is_held_out() -> None:
    theirs = load_digits()
    train, held_out = digits.open_gallery(Digits(captions=1), 0)
    assert (train.samples, held_out.samples) == (1438, 359)
    for split, images, labels in (
        (train, theirs.images[:1438], theirs.target[:1438]),
        (held_out, theirs.images[1438:], theirs.target[1438:]),
    ):
        expected = sorted(
            (np.rint(i * 255 / 16).astype(int).tobytes(), int(n)) for i, n in zip(images, labels, strict=True)
        )
        found = [(s.image[..., 0].astype(int).tobytes(), digits.find_label(s.caption)) for s in captioned(split)]
        assert sorted(found) == expected


def test_no_image_is_on_both_sides() -> None:
    train, held_out = digits.open_gallery(Digits(), 0)
    seen = {sample.image.tobytes() for sample in captioned(train)}
    assert not seen & {sample.image.tobytes() for sample in captioned(held_out)}


def test_an_image_has_as_many_captions_as_asked_for_each_worded_differently() -> None:
    train, _ = digits.open_gallery(Digits(captions=12), 0)
    by_image: dict[bytes, list[str]] = {}
    for image, caption in captioned(train):
        by_image.setdefault(image.tobytes(), []).append(caption)
    assert len(by_image) == 1438
    for captions in by_image.values():
        assert len(set(captions)) == 12
        assert len({digits.find_label(caption) for caption in captions}) == 1


def test_there_are_at_least_ten_wordings_and_each_names_every_digit() -> None:
    assert len(digits.WORDINGS) >= 10
    for label, name in enumerate(digits.NAMES):
        assert {digits.find_label(wording.format(name=name, figure=label)) for wording in digits.WORDINGS} == {label}


@pytest.mark.parametrize("caption", ["a handwritten letter", "", "three or four", "the digit 17"])
def test_a_caption_of_no_digit_or_of_several_has_no_label(caption: str) -> None:
    assert digits.find_label(caption) is None


def test_the_variant_alone_decides_wordings_and_order() -> None:
    captions = [list(digits.open_gallery(Digits(), variant).train.captions()) for variant in (0, 0, 1)]
    assert captions[0] == captions[1]
    assert captions[0] != captions[2]
    assert sorted(map(digits.find_label, captions[0])) == sorted(map(digits.find_label, captions[2]))


def test_the_captions_alone_come_in_the_order_of_the_images() -> None:
    train, _ = digits.open_gallery(Digits(), 0)
    assert list(train.captions()) == [sample.caption for sample in train.read()]


def test_neighbours_are_not_in_the_order_of_the_file() -> None:
    train, _ = digits.open_gallery(Digits(), 0)
    labels = [digits.find_label(caption) for caption in train.captions()]
    followed = sum((second - first) % 10 == 1 for first, second in pairwise(labels))
    assert followed / len(labels) < 0.13  # one in ten by chance; in the file it is most of them


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise digits.PackageNotFoundError(name)

    monkeypatch.setattr(digits, "distribution", missing)
    with pytest.raises(EnvironmentProblem, match=r"scikit-learn, which is not installed\nrun: pip install 'gnflow\["):
        digits.open_gallery(Digits(), 0)


@pytest.mark.parametrize(
    "content", [gzip.compress(b"1,2,3", mtime=0), b"not gzip", b""], ids=["short", "not gzip", "empty"]
)
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "digits.csv.gz"
    path.write_bytes(content)
    monkeypatch.setattr(digits, "FILE", str(path))
    with pytest.raises(DataError, match=r"digits\.csv\.gz does not hold the digits"):
        digits.open_gallery(Digits(), 0)
