"""A codebook of image patches, fitted by k-means.

    c(x) = argmin_k |x - m_k|^2,    m_k = round(mean of the patches x with c(x) = k)

The first centres are drawn by k-means++ (Arthur and Vassilvitskii 2007). Pixels and centres are whole numbers, so every
sum is exact in whatever order it is taken, and the codebook is the same on every machine.
"""

import numpy as np
from numpy.typing import NDArray

from gnflow.data.multimodal.samples import Codes, Pixels, draw
from gnflow.errors import DataError

CHUNK = 1 << 14


def cut_patches(images: Pixels, side: int) -> Pixels:
    """Cut images [images, height, width, colours] into patches [images, patches, values], row by row."""
    count, height, width, colours = images.shape
    cut = images.reshape(count, height // side, side, width // side, side, colours).swapaxes(2, 3)
    return cut.reshape(count, -1, side * side * colours)


def assemble(cut: Pixels, shape: tuple[int, int, int], side: int) -> Pixels:
    """Assemble patches into images of this height, width and colours: the inverse of `cut_patches`."""
    height, width, colours = shape
    grid = cut.reshape(len(cut), height // side, width // side, side, side, colours)
    return grid.swapaxes(2, 3).reshape(len(cut), height, width, colours)


def fit(cut: Pixels, size: int, iterations: int, seed: int) -> Pixels:
    """Fit the codebook, [size, values], to the patches [patches, values].

    Raises DataError when there are fewer distinct patches than codes.
    """
    distinct, counts = np.unique(cut, axis=0, return_counts=True)
    if len(distinct) < size:
        raise DataError(
            f"data.image_tokenizer.codebook is {size}, but the training images have {len(distinct)} distinct patches\n"
            "lower it, or give more images"
        )
    points, weights = distinct.astype(float), counts.astype(float)
    centres = _draw_centres(points, weights, size, seed)
    codes = find_nearest(points, centres)
    for _ in range(iterations):
        centres = _compute_means(points, weights, codes, centres)
        moved = find_nearest(points, centres)
        if np.array_equal(moved, codes):
            break
        codes = moved
    return centres.astype(np.uint8)


def find_nearest(points: NDArray[np.float64], centres: NDArray[np.float64]) -> Codes:
    """Find the centre nearest to each point; the first of several."""
    lengths = (centres**2).sum(axis=1)
    chunks = [points[start : start + CHUNK] for start in range(0, len(points), CHUNK)]
    return np.concatenate([(lengths - 2 * chunk @ centres.T).argmin(axis=1) for chunk in chunks])


def encode(images: Pixels, codebook: Pixels, side: int) -> Codes:
    """Encode images [images, height, width, colours] as codes [images, patches]."""
    cut = cut_patches(images, side)
    return find_nearest(cut.reshape(-1, cut.shape[-1]).astype(float), codebook.astype(float)).reshape(cut.shape[:2])


def decode(codes: Codes, codebook: Pixels, shape: tuple[int, int, int], side: int) -> Pixels:
    """Decode codes to quantised images, [images, height, width, colours]."""
    return assemble(codebook[codes], shape, side)


def _draw_centres(
    points: NDArray[np.float64], weights: NDArray[np.float64], size: int, seed: int
) -> NDArray[np.float64]:
    """Draw each centre from the points, with probability proportional to its squared distance from those before it."""
    chosen: list[int] = []
    mass = weights
    distances = np.full(len(points), np.inf)
    for place in range(size):
        upto = np.cumsum(mass)
        chosen.append(int(np.searchsorted(upto, draw(int(upto[-1]), "centre", seed, place), side="right")))
        distances = np.minimum(distances, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
        mass = weights * distances
    return points[chosen]


def _compute_means(
    points: NDArray[np.float64], weights: NDArray[np.float64], codes: Codes, centres: NDArray[np.float64]
) -> NDArray[np.float64]:
    sizes = np.bincount(codes, weights, len(centres))[:, None]
    sums = np.stack([np.bincount(codes, weights * column, len(centres)) for column in points.T], axis=1)
    # A centre that lost its last patch stays where it is.
    return np.where(sizes > 0, np.rint(sums / np.maximum(sizes, 1)), centres)
