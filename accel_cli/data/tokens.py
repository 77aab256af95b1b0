"""Make tokens of documents, once, into one flat array of the cache."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from accel_cli.data.base import Report, Split, refuse
from accel_cli.data.cache import cached, fingerprint, load_facts, save
from accel_cli.data.documents import Stretch, read_documents
from accel_cli.data.tokenizer import Separator, Tokenizer

BATCH = 1 << 23
"""Bytes of text that are given to the tokenizer at once, to be shared among its threads."""
FILE = "tokens"


@dataclass(frozen=True)
class Stream:
    """Tokens of one split, the smallest unsigned integers that hold the vocabulary, and the bytes of their text."""

    tokens: np.ndarray
    text_bytes: int


def token_entry(
    folder: Path,
    parts: dict[Split, list[Stretch]],
    tokenizer: Tokenizer,
    *,
    source: dict[str, Any],
    separator: Separator,
    field: str,
    report: Report,
) -> Path:
    """The cache entry that holds the documents' tokens, made if need be.

    ``source`` says how ``parts`` were named and cut. Raises ConfigError for text that the tokenizer does not take,
    ResourceError for the disk.
    """
    files = list(dict.fromkeys(stretch.path for part in parts.values() for stretch in part))
    size = sum(stretch.end - stretch.start for part in parts.values() for stretch in part)

    def build(entry: Path) -> None:
        tokenizer.load()
        has_several = len(files) > 1 or any(stretch.is_lines for stretch in parts["train"])
        between = tokenizer.separator(separator) if has_several or separator != "auto" else None
        counts: dict[str, int] = {}
        sizes: dict[str, int] = {}
        told = Told(report, size)
        with (entry / FILE).open("wb") as file:
            for name, part in parts.items():
                counts[name], sizes[name] = write_tokens(file, part, tokenizer, between, field, told)
        if told.done < size:
            report("tokenise bytes", size, size)
        facts = {"tokens": counts, "bytes": sizes, "vocabulary": tokenizer.vocabulary, "dtype": tokenizer.dtype.name}
        save(entry, facts=facts)

    return cached(
        folder,
        name="text",
        source={**source, "tokenizer": tokenizer.identity, "separator": separator, "field": field},
        content=fingerprint(Path("/"), [str(Path(file).absolute()) for file in files]),
        # A token of two bytes or four stands for three bytes of text or more.
        bytes_needed=size,
        build=build,
    )


def load_tokens(entry: Path) -> tuple[dict[Split, Stream], int]:
    """The splits, memory-mapped, and the size of the vocabulary."""
    facts = load_facts(entry)
    dtype, counts = np.dtype(facts["dtype"]), facts["tokens"]
    if not sum(counts.values()):
        raise refuse("data.path", "holds no text", "give a file that does")
    # Copy-on-write: torch wants writable memory, the file never changes.
    tokens = np.memmap(entry / FILE, dtype=dtype, mode="c")
    ends = list(itertools.accumulate(counts.values()))
    streams = {
        name: Stream(tokens[end - count : end], facts["bytes"][name])
        for (name, count), end in zip(counts.items(), ends, strict=True)
    }
    return streams, facts["vocabulary"]


class Told:
    """Reports how much of the text is done."""

    def __init__(self, report: Report, total: int) -> None:
        self.report = report
        self.total = total
        self.done = 0

    def add(self, size: int) -> None:
        self.done += size
        self.report("tokenise bytes", min(self.done, self.total), self.total)


def write_tokens(
    file: IO[bytes],
    part: list[Stretch],
    tokenizer: Tokenizer,
    separator: int | None,
    field: str,
    told: Told,
) -> tuple[int, int]:
    """Append a split's documents, ``separator`` between them; returns how many tokens, and bytes of text."""
    tokens = text_bytes = 0
    between = b"" if separator is None else np.array([separator], dtype=tokenizer.dtype).tobytes()
    for batch in _batches(_documents(part, tokenizer, field)):
        encoded = tokenizer.encode([text for _, text in batch])
        for (begins, text), own in zip(batch, encoded, strict=True):
            if begins and tokens and separator is not None:
                file.write(between)
                tokens += 1
            file.write(own.tobytes())
            tokens += len(own)
            text_bytes += len(text)
        told.add(sum(len(text) for _, text in batch))
    return tokens, text_bytes


def _documents(part: list[Stretch], tokenizer: Tokenizer, field: str) -> Iterator[tuple[bool, bytes]]:
    for stretch in part:
        position = stretch.start
        for begins, text in read_documents(stretch, field):
            if tokenizer.reads_text:
                _check(text, stretch, position)
            position += len(text)
            yield begins, text


def _check(text: bytes, stretch: Stretch, position: int) -> None:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        why = f"{stretch.path} is not UTF-8 text (byte {position + error.start})"
        raise refuse("data.path", why, "save it as UTF-8, name others, or try data.tokenizer=bytes") from error


def _batches(documents: Iterable[tuple[bool, bytes]]) -> Iterator[list[tuple[bool, bytes]]]:
    batch: list[tuple[bool, bytes]] = []
    size = 0
    for begins, text in documents:
        batch.append((begins, text))
        size += len(text)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
