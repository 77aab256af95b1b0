"""Precision: a file an option."""

import logging

# At its import torchao registers enums in a way that torch 2.14 calls deprecated: nothing that a user could act on.
logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
