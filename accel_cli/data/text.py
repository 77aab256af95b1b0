"""Text as a stream of tokens, cut into train, validation and test from front to back."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from accel_cli.data.arrays import ShiftingWindows, WindowDataset
from accel_cli.data.base import Data, Loaded, Report, Split, quiet, refuse, sample_counts
from accel_cli.data.cache import cache_folder
from accel_cli.data.documents import Stretch, cut_files, find_files
from accel_cli.data.tokenizer import Separator, open_tokenizer
from accel_cli.data.tokens import Stream, load_tokens, token_entry
from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, ResourceError

NOT_LIBRARY = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"}


class Text(Data):
    """Files of the user's. One whose bytes are the tokens is memory-mapped as it is, others are tokenised once."""

    def files(self) -> list[Stretch]:
        return find_files(self.config.path, f"data.path={self.config.path}")

    @property
    def source(self) -> dict[str, Any]:
        """How the files were named."""
        return {"path": os.path.abspath(os.path.expanduser(self.config.path))}

    @property
    def separator(self) -> Separator:
        return self.config.separator

    @property
    def field(self) -> str:
        return self.config.field

    def raw(self, files: list[Stretch]) -> np.ndarray | None:
        """The stream, uint8 [bytes], where it is there already; None where tokens have to be made."""
        if self.config.tokenizer != "bytes" or len(files) > 1 or files[0].is_lines:
            return None
        try:
            return np.memmap(files[0].path, dtype=np.uint8, mode="c")
        except OSError as error:
            why = f"cannot be read: {error.strerror}"
            raise refuse(f"data.path={self.config.path}", why, "check its permissions") from error

    def prepare(self, report: Report) -> None:
        self.streams(report)

    def streams(self, report: Report) -> tuple[dict[Split, Stream], int]:
        """The tokens of each split, and the size of the vocabulary."""
        config, tokenizer, files = self.config, open_tokenizer(self.config), self.files()
        shares = config.validation_share, config.test_share
        raw = self.raw(files)
        if raw is not None:
            tokenizer.separator(self.separator)
            cuts = cut_files([Stretch("", 0, len(raw))], *shares, whole_characters=False)
            bounds = {name: (part[0].start, part[0].end) if part else (0, 0) for name, part in cuts.items()}
            return {name: Stream(raw[a:b], b - a) for name, (a, b) in bounds.items()}, tokenizer.vocabulary
        entry = token_entry(
            cache_folder(config.cache),
            cut_files(files, *shares, whole_characters=tokenizer.reads_text),
            tokenizer,
            source={**self.source, "shares": shares},
            separator=self.separator,
            field=self.field,
            report=report,
        )
        return load_tokens(entry)

    def load(self) -> Loaded:
        streams, vocabulary = self.streams(quiet)
        splits = windows(streams, self.config, self.seed)
        ratios = {str(name): stream.text_bytes / len(stream.tokens) for name, stream in streams.items()}
        return Loaded(
            DataDescription(
                input="tokens",
                target="next_token",
                input_shape=(self.config.length,),
                vocabulary=vocabulary,
                bytes_per_token=ratios["train"],
                bytes_per_token_of=ratios if len(set(ratios.values())) > 1 else None,
                **sample_counts(splits),
            ),
            splits,
        )


class StandardLibraryText(Text):
    """The .py files of the running Python's standard library, one behind another in sorted order, without its tests."""

    separator = None
    field = ""

    @property
    def source(self) -> dict[str, Any]:
        return {"path": sysconfig.get_path("stdlib"), "max_bytes": self.config.max_bytes}

    def files(self) -> list[Stretch]:
        found, room = [], self.config.max_bytes
        for path in library_files():
            size = path.stat().st_size if room is None else min(path.stat().st_size, room)
            found.append(Stretch(str(path), 0, size))
            room = None if room is None else room - size
            if room == 0:
                break
        if not found:
            raise ResourceError(
                f"no .py file of the standard library in {sysconfig.get_path('stdlib')}",
                "try data=text data.path=some/file.txt",
            )
        return found

    def raw(self, files: list[Stretch]) -> np.ndarray | None:
        if self.config.tokenizer != "bytes":
            return None
        pieces = (Path(file.path).read_bytes()[: file.end] for file in files)
        return np.frombuffer(bytearray(b"".join(pieces)), dtype=np.uint8)


def library_files() -> Iterator[Path]:
    for folder, folders, files in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = sorted(set(folders) - NOT_LIBRARY)
        yield from (Path(folder, file) for file in sorted(files) if file.endswith(".py"))


def windows(streams: dict[Split, Stream], config: Any, seed: int) -> dict[Split, Any]:
    """Windows of each split; only those of train ever shift.

    Raises ConfigError where a part is shorter than one window and the token after it.
    """
    length = config.length
    shortest = min(len(stream.tokens) for stream in streams.values())
    if shortest <= length:
        raise too_short(streams, config, shortest)
    tokens = {name: torch.from_numpy(stream.tokens) for name, stream in streams.items()}
    parts: dict[Split, Any] = {name: WindowDataset(part, length) for name, part in tokens.items()}
    if config.windows == "shifting":
        if len(tokens["train"]) < 2 * length:
            why = f"train has {len(tokens['train']):,} tokens; two windows of {length} leave room to shift"
            raise refuse("data.windows=shifting", why, "try data.windows=fixed, or a smaller data.length")
        parts["train"] = ShiftingWindows(tokens["train"], length, seed)
    return parts


def too_short(streams: dict[Split, Stream], config: Any, shortest: int) -> ConfigError:
    sizes = ", ".join(f"{name} {len(stream.tokens):,}" for name, stream in streams.items())
    fix = f"try data.length={shortest - 1}" if shortest > 1 else "give a longer text"
    unit = "bytes" if config.tokenizer == "bytes" else "tokens"
    why = f"a window needs {config.length + 1:,} {unit} of each split ({sizes})"
    return refuse(f"data.length={config.length}", why, fix)
