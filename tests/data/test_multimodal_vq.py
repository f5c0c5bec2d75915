import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray

from gnflow.data.multimodal import digits, vq
from gnflow.data.multimodal.codec import measure_reconstruction
from gnflow.data.multimodal.samples import Captioned, Codec, Images
from gnflow.errors import DataError
from gnflow.spec.multimodal import Digits


def noise(*shape: int, seed: int = 0, levels: int = 256) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(levels, size=shape, dtype=np.uint8)


def squared(points: NDArray[np.uint8], centres: NDArray[np.uint8]) -> NDArray[np.int64]:
    """All squared distances, in whole numbers."""
    return ((points[:, None].astype(np.int64) - centres[None].astype(np.int64)) ** 2).sum(axis=2)


@pytest.mark.parametrize(("shape", "side"), [((4, 6, 1), 2), ((6, 3, 3), 3), ((2, 2, 3), 1)])
def test_patches_are_the_blocks_of_an_image_row_by_row(shape: tuple[int, int, int], side: int) -> None:
    images = noise(5, *shape)
    cut = vq.cut_patches(images, side)
    blocks = [
        images[2, top : top + side, left : left + side].reshape(-1)
        for top in range(0, shape[0], side)
        for left in range(0, shape[1], side)
    ]
    assert np.array_equal(cut[2], np.stack(blocks))
    assert np.array_equal(vq.assemble(cut, shape, side), images)


def test_a_code_is_the_nearest_patch_of_the_codebook() -> None:
    images, codebook = noise(20, 4, 4, 1), noise(9, 4, seed=1)
    expected = squared(vq.cut_patches(images, 2).reshape(-1, 4), codebook).argmin(axis=1)
    assert np.array_equal(vq.encode(images, codebook, 2).reshape(-1), expected)


def test_each_centre_is_the_rounded_mean_of_its_patches_once_nothing_moves() -> None:
    points = noise(400, 3)
    codebook = vq.fit(points, 12, 1000, seed=0)
    codes = squared(points, codebook).argmin(axis=1)
    for code in range(12):
        assert np.array_equal(codebook[code], np.rint(points[codes == code].mean(axis=0)))


def test_fitting_lowers_the_error_of_the_first_centres() -> None:
    points = noise(500, 4)
    errors = [squared(points, vq.fit(points, 16, rounds, seed=3)).min(axis=1).sum() for rounds in (1, 3, 100)]
    assert errors[0] > errors[1] > errors[2]


def test_separate_clouds_get_a_code_each() -> None:
    centres = np.array([[20, 20], [20, 220], [220, 20], [220, 220], [120, 120]])
    points = np.concatenate([centre + noise(50, 2, seed=place, levels=9) - 4 for place, centre in enumerate(centres)])
    codebook = vq.fit(points.astype(np.uint8), 5, 100, seed=0)
    assert (squared(codebook, centres).min(axis=1) <= 8).all()
    assert len(set(squared(codebook, centres).argmin(axis=1))) == 5


def test_the_codebook_depends_on_the_set_of_patches_and_the_seed_alone() -> None:
    points = noise(300, 4)
    first = vq.fit(points, 10, 50, seed=0)
    assert np.array_equal(vq.fit(points[::-1], 10, 50, seed=0), first)
    assert not np.array_equal(vq.fit(points, 10, 50, seed=1), first)


def test_a_quantised_image_is_its_own_quantisation() -> None:
    images = np.stack([sample.image for sample in digits.open_gallery(Digits(captions=1), 0).held_out.read()])
    codebook = vq.fit(vq.cut_patches(images, 2).reshape(-1, 4), 32, 20, seed=0)
    quantised = vq.decode(vq.encode(images, codebook, 2), codebook, (8, 8, 1), 2)
    assert np.array_equal(vq.decode(vq.encode(quantised, codebook, 2), codebook, (8, 8, 1), 2), quantised)


def test_with_as_many_codes_as_distinct_patches_nothing_is_lost() -> None:
    images = noise(6, 4, 4, 1, levels=2)
    cut = vq.cut_patches(images, 2).reshape(-1, 4)
    codebook = vq.fit(cut, len(np.unique(cut, axis=0)), 10, seed=0)
    assert np.array_equal(vq.decode(vq.encode(images, codebook, 2), codebook, (4, 4, 1), 2), images)


def test_more_codes_than_distinct_patches_are_refused() -> None:
    with pytest.raises(DataError, match=r"codebook is 5, but the training images have 4 distinct patches\nlower it"):
        vq.fit(np.arange(4, dtype=np.uint8)[:, None].repeat(3, axis=0), 5, 10, seed=0)


def test_the_reported_error_is_the_root_mean_square_over_every_pixel() -> None:
    images = noise(10, 2, 2, 1)
    codec = Codec(lambda x: np.zeros((len(x), 1), dtype=np.int64), lambda c: np.full((len(c), 2, 2, 1), 7, np.uint8))
    found = measure_reconstruction(
        codec, Images(10, lambda: (Captioned(image, "") for image in images), lambda: iter(()))
    )
    assert found.error == pytest.approx(np.sqrt(((images.astype(float) - 7) ** 2).mean()))
    assert (found.codes_used, found.images) == (1, 10)


def test_the_codebook_of_the_digits_is_the_same_on_every_machine() -> None:
    images = np.stack([sample.image for sample in digits.open_gallery(Digits(), 0).train.read()])
    codebook = vq.fit(vq.cut_patches(images, 2).reshape(-1, 4), 64, 100, seed=0)
    assert hashlib.sha256(codebook.tobytes()).hexdigest().startswith("2a343c4866d12688")
