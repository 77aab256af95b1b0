"""Tell a model's hidden weight matrices from its embeddings, heads and vectors."""

from __future__ import annotations

from torch import nn

CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
HEADS = {"head", "heads", "lm_head", "classifier"}


def hidden_matrices(model: nn.Module) -> set[int]:
    """The ids of the trainable parameters that map hidden to hidden: linear weights and convolution filters.

    Left out: embeddings (by class, or a name with ``embed``), heads (by name, and the last matrix that the
    model registers), and whatever is tied to one of them.
    After Keller Jordan, https://kellerjordan.github.io/posts/muon/ .
    """
    owned = [
        (f"{path}.{name}".lower(), module, parameter)
        for path, module in model.named_modules()
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if parameter.dim() >= 2
    ]
    outer = {id(parameter) for path, module, parameter in owned if _is_outer(path, module)}
    if owned:
        outer.add(id(owned[-1][2]))
    return {
        id(parameter)
        for _, module, parameter in owned
        if parameter.requires_grad
        and id(parameter) not in outer
        and (parameter.dim() == 2 or isinstance(module, CONVOLUTIONS))
    }


def _is_outer(path: str, module: nn.Module) -> bool:
    return isinstance(module, EMBEDDINGS) or "embed" in path or not HEADS.isdisjoint(path.split("."))
