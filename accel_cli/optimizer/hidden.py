"""Tell a model's hidden weight matrices from its embeddings, heads and vectors."""

from __future__ import annotations

from torch import Tensor, nn

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
    model registers), whatever is tied to one of them, and filters that no view can show as a matrix.
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
        and can_flatten(parameter)
    }


def _is_outer(path: str, module: nn.Module) -> bool:
    return isinstance(module, EMBEDDINGS) or "embed" in path or not HEADS.isdisjoint(path.split("."))


def memory_order(tensor: Tensor) -> list[int]:
    """The dimensions, the first kept in front, the others as they lie in memory: channels_last can be a view.

    The order of a matrix's columns does not matter to its orthogonalisation.
    """
    return [0, *sorted(range(1, tensor.dim()), key=tensor.stride, reverse=True)]


def can_flatten(parameter: Tensor) -> bool:
    """Whether ``flat`` would be a view, so that an update in place reaches the parameter."""
    if parameter.dim() == 2:
        return True
    ordered = parameter.detach().permute(memory_order(parameter))
    return all(
        ordered.size(d) == 1 or ordered.stride(d) == ordered.stride(d + 1) * ordered.size(d + 1)
        for d in range(1, ordered.dim() - 1)
    )


def flat(tensor: Tensor, order: list[int]) -> Tensor:
    """[out, ...] -> [out, rest]: a view where memory allows, else a copy."""
    return tensor if tensor.dim() == 2 else tensor.permute(order).flatten(1)
