"""Mean and standard deviation of channels or features, by which the loader standardises."""

from __future__ import annotations

import numpy as np

Moments = tuple[tuple[float, ...], tuple[float, ...]]
ROWS_AT_ONCE = 256


def image_moments(images: np.ndarray) -> np.ndarray:
    """Sums and sums of squares of each channel of each image: uint8 [n, c, h, w] -> uint64 [n, 2, c], exact."""
    sums = images.sum(axis=(2, 3), dtype=np.uint64)
    squares = np.square(images, dtype=np.uint16).sum(axis=(2, 3), dtype=np.uint64)
    return np.stack([sums, squares], axis=1)


def mean_and_std_of_images(moments: np.ndarray, images: int, *, pixels: int) -> Moments:
    """From the moments, uint64 [any, 2, c], of this many images of this many pixels."""
    count = images * pixels
    sums, squares = (row.tolist() for row in moments.sum(axis=0, dtype=np.uint64))
    # Integers throughout: the difference of two large squares would lose digits as floats.
    variances = [(count * square - total * total) / count**2 for total, square in zip(sums, squares, strict=True)]
    return tuple(total / count for total in sums), _scales(np.array(variances))


def mean_and_std(inputs: np.ndarray, rows: np.ndarray) -> Moments:
    """Of the named rows of any [n, c, ...], in float64 and two passes, so that far-off features keep their digits."""
    if inputs.dtype == np.uint8 and inputs.ndim == 4:
        sums = [image_moments(inputs[piece]).sum(axis=0) for piece in _pieces(rows)]
        return mean_and_std_of_images(np.stack(sums), len(rows), pixels=int(np.prod(inputs.shape[2:])))
    axes = (0, *range(2, inputs.ndim))
    count = len(rows) * int(np.prod(inputs.shape[2:], dtype=np.int64))
    mean = sum(inputs[piece].sum(axis=axes, dtype=np.float64) for piece in _pieces(rows)) / count
    column = mean.reshape(-1, *[1] * (inputs.ndim - 2))
    variance = sum(np.square(inputs[piece] - column).sum(axis=axes) for piece in _pieces(rows)) / count
    return tuple(mean.tolist()), _scales(variance)


def _pieces(rows: np.ndarray) -> list[np.ndarray]:
    return np.array_split(rows, -(-len(rows) // ROWS_AT_ONCE))


def _scales(variances: np.ndarray) -> tuple[float, ...]:
    """Standard deviations; 1 for what never changes, which is then only shifted to zero."""
    return tuple(float(v**0.5) if v > 0 else 1.0 for v in variances.tolist())
