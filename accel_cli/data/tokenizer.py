"""What a tokenizer is, the harmless one, whose tokens are bytes, and how one is opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from accel_cli.config.parts import load
from accel_cli.data.base import refuse

Separator = int | str | None


class Tokenizer:
    """Each byte is a token. A subclass says what is different."""

    vocabulary = 256
    """One more than the largest token."""
    reads_text = False
    """Whether it takes UTF-8 only, and whole characters of it."""
    identity: Any = "bytes"
    """Changes whenever other tokens could come of the same text."""

    def load(self) -> None:
        """Read what encoding takes; not needed where the tokens are in the cache."""

    def encode(self, texts: Sequence[bytes]) -> list[np.ndarray]:
        """The tokens of each text, integers [tokens], in ``dtype``, without any that is added."""
        return [np.frombuffer(text, dtype=np.uint8) for text in texts]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest that holds every token."""
        return np.dtype(np.min_scalar_type(self.vocabulary - 1))

    def named(self, token: str) -> int | None:
        """The number of a token of the vocabulary."""
        return None

    def end_of_text(self) -> int | None:
        """The token that its own training data was separated by, where that can be told."""
        return 0

    def separator(self, given: Separator) -> int | None:
        """What stands between documents, as data.separator says. Raises ConfigError for what is no token."""
        where = f"data.separator={given}"
        if given is None:
            return None
        if given == "auto":
            token = self.end_of_text()
            why = "the tokenizer does not tell which token ends a text"
        elif isinstance(given, str):
            token, why = self.named(given), "no such token"
        else:
            token, why = given if given < self.vocabulary else None, f"the tokens are 0 to {self.vocabulary - 1}"
        if token is None:
            fix = "try data.separator=0, or any other token, or data.separator=null for none"
            raise refuse(where, why, fix)
        return token


def open_tokenizer(config: Any) -> Tokenizer:
    """What ``config.tokenizer`` names; imports only the library that this takes."""
    if config.tokenizer == "bytes":
        return Tokenizer()
    place = "tokenizer_file:File" if config.reads_file else "tokenizer_tiktoken:Tiktoken"
    tokenizer: Tokenizer = load(f"accel_cli.data.{place}")(config.tokenizer)
    return tokenizer
