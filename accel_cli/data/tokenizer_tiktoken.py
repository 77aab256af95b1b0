"""The encodings that tiktoken knows by name, such as gpt2 and o200k_base."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tiktoken

from accel_cli.data.base import refuse
from accel_cli.data.tokenizer import Tokenizer
from accel_cli.errors import ResourceError


class Tiktoken(Tokenizer):
    """Its merges are downloaded at the first use into $TIKTOKEN_CACHE_DIR, or a folder of the system's temporary files.

    Once the tokens of a text are in the cache, neither the merges nor a network are needed.
    """

    reads_text = True

    def __init__(self, name: str) -> None:
        known = tiktoken.list_encoding_names()
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            fix = f"did you mean data.tokenizer={near[0]} ?" if near else f"try one of {', '.join(known)}"
            raise refuse(f"data.tokenizer={name}", "neither bytes, nor a file, nor an encoding of tiktoken", fix)
        self.name = name
        self.identity = f"tiktoken {name}"

    def load(self) -> None:
        """Read the merges. Raises ResourceError where they are not there and cannot be downloaded."""
        try:
            self.own = tiktoken.get_encoding(self.name)
        except Exception as error:  # whatever requests raises, and ValueError for a damaged download
            cause = (str(error).splitlines() or [type(error).__name__])[0][:120]
            raise ResourceError(
                f"the encoding {self.name} of tiktoken could not be downloaded: {cause}",
                "name a file, as data.tokenizer=a/folder/tokenizer.json, or set TIKTOKEN_CACHE_DIR to where it lies",
            ) from error
        self.vocabulary = self.own.max_token_value + 1

    def encode(self, texts: Sequence[bytes]) -> list[np.ndarray]:
        with ThreadPoolExecutor() as pool:
            return list(pool.map(self._encode, texts))

    def named(self, token: str) -> int | None:
        try:
            return int(self.own.encode_single_token(token))
        except KeyError:
            return None

    def end_of_text(self) -> int | None:
        return self.named("<|endoftext|>")

    def _encode(self, text: bytes) -> np.ndarray:
        return np.array(self.own.encode_ordinary(text.decode()), dtype=self.dtype)
