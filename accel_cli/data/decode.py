"""Decode image files of any size into one array."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np
from PIL import Image, ImageOps

from accel_cli.data.base import Report
from accel_cli.data.statistics import image_moments

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What PIL raises for a file that is no image, or half of one."""
FILES_AT_ONCE = 64


def image_size(path: str) -> tuple[int, int]:
    """Width and height, from the header. Raises one of UNREADABLE."""
    with Image.open(path) as image:
        return image.size


def decode(path: str, size: tuple[int, int], channels: int) -> np.ndarray:
    """One image, uint8 [channels, height, width], scaled to cover ``size`` (width, height), cropped at the centre."""
    mode = "L" if channels == 1 else "RGB"
    with Image.open(path) as image:
        image.draft(mode, (2 * size[0], 2 * size[1]))  # lets a large JPEG be decoded at a fraction of its size
        picture = image.convert(mode)
    if picture.size != size:
        picture = ImageOps.fit(picture, size, Image.Resampling.BILINEAR)
    return np.asarray(picture).reshape(size[1], size[0], channels).transpose(2, 0, 1)


def decode_all(paths: Sequence[str], images: np.ndarray, report: Report) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Fill ``images``, uint8 [n, channels, height, width], in threads; PIL decodes outside Python's lock.

    Returns the images' moments, uint64 [n, 2, channels], and the unreadable files, each with the reason.
    """
    channels, height, width = images.shape[1:]
    moments = np.zeros((len(paths), 2, channels), dtype=np.uint64)

    def decode_some(start: int) -> list[tuple[str, str]]:
        broken = []
        rows = range(start, min(start + FILES_AT_ONCE, len(paths)))
        block = np.zeros((len(rows), channels, height, width), dtype=np.uint8)
        for row, path in enumerate(paths[start : rows.stop]):
            try:
                block[row] = decode(path, (width, height), channels)
            except UNREADABLE as error:
                broken.append((path, _reason(error)))
        images[start : rows.stop] = block
        moments[start : rows.stop] = image_moments(block)
        return broken

    unreadable: list[tuple[str, str]] = []
    with ThreadPoolExecutor(_cores()) as pool:
        blocks = [pool.submit(decode_some, start) for start in range(0, len(paths), FILES_AT_ONCE)]
        try:
            for done, block in enumerate(as_completed(blocks), start=1):
                unreadable += block.result()
                report("decode images", min(done * FILES_AT_ONCE, len(paths)), len(paths))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return moments, sorted(unreadable)


def _reason(error: BaseException) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image that PIL knows"
    return str(error) or type(error).__name__


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
