"""The tokenizer of a tokenizer.json, as Hugging Face's tokenizers library writes it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers

from accel_cli.data.base import refuse
from accel_cli.data.tokenizer import Tokenizer

ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "<EOS>", "<|end|>", "[SEP]")
"""Names by which the common tokenizers call the end of a text; the file itself does not say which it is."""


class File(Tokenizer):
    """Truncation, padding and templates of the file are left out, and text that spells a special token stays text."""

    reads_text = True

    def __init__(self, name: str) -> None:
        self.where = f"data.tokenizer={name}"
        try:
            self.content = Path(name).expanduser().read_bytes()
        except OSError as error:
            why = f"cannot be read: {error.strerror}"
            raise refuse(self.where, why, "give the path of a tokenizer.json") from error
        self.identity = hashlib.sha256(self.content).hexdigest()

    def load(self) -> None:
        """Raises ConfigError where the file holds no tokenizer."""
        try:
            self.own = tokenizers.Tokenizer.from_str(self.content.decode())
        except Exception as error:  # the library raises no other class
            fix = "give a tokenizer.json, as tokenizer.save(...) of the tokenizers library writes it"
            raise refuse(self.where, f"holds no tokenizer: {str(error)[:100]}", fix) from error
        self.own.no_truncation()
        self.own.no_padding()
        self.own.encode_special_tokens = True
        self.vocabulary = max(self.own.get_vocab(with_added_tokens=True).values(), default=0) + 1

    def encode(self, texts: Sequence[bytes]) -> list[np.ndarray]:
        found = self.own.encode_batch_fast([text.decode() for text in texts], add_special_tokens=False)
        return [np.array(each.ids, dtype=self.dtype) for each in found]

    def named(self, token: str) -> int | None:
        number: int | None = self.own.token_to_id(token)
        return number

    def end_of_text(self) -> int | None:
        return next((number for name in ENDS if (number := self.named(name)) is not None), None)
