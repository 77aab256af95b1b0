"""Decode image files of any size into one array."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np
from PIL import Image, ImageOps

from accel_cli.data.base import Report
from accel_cli.data.statistics import image_moments

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What PIL raises for a file that is no image, or half of one."""
FILES_AT_ONCE = 64
THREADS_PAY = 5e-4
"""Seconds for one image from which threads are quicker: 0.1 ms for 32 x 32 pixels, 1 ms for 256 x 256."""


def image_size(path: str) -> tuple[int, int]:
    """Width and height, from the header. Raises one of UNREADABLE."""
    with Image.open(path) as image:
        return image.size


def decode(path: str, size: tuple[int, int], channels: int) -> np.ndarray:
    """One image, uint8 [channels, height, width], scaled to cover ``size`` (width, height), cropped at the centre."""
    mode = "L" if channels == 1 else "RGB"
    with open(path, "rb") as file:
        content = io.BytesIO(file.read())  # PIL reads a file in small pieces: a sixth of the time of a small image
    with Image.open(content) as image:
        if image.size != size:
            image.draft(mode, (2 * size[0], 2 * size[1]))  # lets a large JPEG be decoded at a fraction of its size
        picture: Image.Image = image if image.mode == mode else image.convert(mode)
        if picture.size != size:
            picture = ImageOps.fit(picture, size, Image.Resampling.BILINEAR)
        pixels = picture.tobytes()
    return np.frombuffer(pixels, np.uint8).reshape(size[1], size[0], channels).transpose(2, 0, 1)


def decode_all(paths: Sequence[str], images: np.ndarray, report: Report) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Fill ``images``, uint8 [n, channels, height, width], in threads where that is quicker.

    PIL decodes outside Python's lock, but threads that hand it to each other for every small image take twice the time
    of one. Returns the images' moments, uint64 [n, 2, channels], and the unreadable files, each with the reason.
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

    began = time.perf_counter()
    unreadable = decode_some(0)
    threads = _cores() if time.perf_counter() - began > THREADS_PAY * min(FILES_AT_ONCE, len(paths)) else 1
    report("decode images", min(FILES_AT_ONCE, len(paths)), len(paths))
    rest = range(FILES_AT_ONCE, len(paths), FILES_AT_ONCE)
    if threads == 1:
        for start in rest:
            unreadable += decode_some(start)
            report("decode images", min(start + FILES_AT_ONCE, len(paths)), len(paths))
        return moments, sorted(unreadable)
    with ThreadPoolExecutor(threads) as pool:
        blocks = [pool.submit(decode_some, start) for start in rest]
        try:
            for done, block in enumerate(as_completed(blocks), start=2):
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
