"""Follow a model's forward as a straight line of calls of its modules, each with the value it had on an example."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

FACTORIES = (
    "arange", "empty", "eye", "full", "linspace", "ones", "rand", "randint", "randn", "randperm", "tensor", "zeros",
)  # fmt: skip
"""Functions of torch that make a tensor of no other: recorded, so that each pass makes it anew."""
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
ROOT = "model."


class NotStraight(Exception):
    """The forward does what a straight line of calls cannot tell."""


class _Value(fx.Proxy):
    """Stands for a value while forward runs, and knows what it is on the example: shapes may steer Python."""

    @property
    def known(self) -> Any:
        return self.node.meta["value"]

    def __getattr__(self, name: str) -> Any:
        value = self.node.meta["value"]
        if isinstance(value, Tensor) and name in ("dtype", "requires_grad", "is_cuda", "layout", "ndim"):
            return getattr(value, name)
        if callable(getattr(value, name)):
            return super().__getattr__(name)
        return self.tracer.create_proxy("call_function", getattr, (self, name), {})

    def __bool__(self) -> bool:
        if isinstance(self.known, Tensor):
            self._refuse("decides by the numbers in a tensor")
        return bool(self.known)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if isinstance(self.known, Tensor):
            self._refuse("goes over the samples of a tensor")
        return iter([self[i] for i in range(len(self.known))])  # type: ignore[index]

    def __len__(self) -> int:
        if isinstance(self.known, Tensor):
            self._refuse("asks for the len() of a tensor; its .shape[0] goes")
        return len(self.known)

    def __index__(self) -> int:
        self._refuse("uses a tensor's size as a Python number, as in range(x.shape[1])")

    __int__ = __index__

    def __setitem__(self, key: Any, value: Any) -> None:
        self._refuse("writes into a part of a tensor")

    def _refuse(self, what: str) -> NoReturn:
        raise NotStraight(f"its forward {what}")


class _Call(nn.Module):
    """Calls the model with its one input: what else forward could take keeps its defaults."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Any) -> Any:
        return self.model(inputs)


class _Tracer(fx.Tracer):
    """Modules are called whole but those that are ``opened``, which are followed."""

    proxy_buffer_attributes = True

    def __init__(self, example: Tensor, opened: Collection[nn.Module]) -> None:
        super().__init__()
        self.example = example
        self.opened = set(opened)
        self.evaluating = False
        self.modes = self._modes()

    def _modes(self) -> tuple[bool, bool]:
        return torch.is_grad_enabled(), torch.is_autocast_enabled(self.example.device.type)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m not in self.opened

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Value(node, self)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any) -> fx.Proxy:
        if self._modes() != self.modes:
            raise NotStraight("its forward switches gradients or autocast on or off between its modules")
        proxy = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        proxy.node.meta["value"] = self._run(proxy.node)
        return proxy

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return forward(*args, **kwargs) if self.evaluating else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:
        return attr_val if self.evaluating else super().getattr(attr, attr_val, parameter_proxy_cache)

    def _run(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self.example
        self.evaluating = True
        try:
            with torch.no_grad():
                return run(node, self.root, lambda n: n.meta["value"])
        finally:
            self.evaluating = False

    @contextmanager
    def recorded_factories(self) -> Iterator[None]:
        kept = {name: getattr(torch, name) for name in FACTORIES}

        def recorded(function: Callable[..., Any]) -> Callable[..., Any]:
            def make(*args: Any, **kwargs: Any) -> Any:
                if self.evaluating:
                    return function(*args, **kwargs)
                return self.create_proxy("call_function", function, args, kwargs)

            return make

        for name, function in kept.items():
            setattr(torch, name, recorded(function))
        try:
            yield
        finally:
            for name, function in kept.items():
                setattr(torch, name, function)


def run(node: fx.Node, root: nn.Module, value_of: Callable[[fx.Node], Any]) -> Any:
    """What a node gives, from the values of the nodes before it."""
    args, kwargs = map_arg(node.args, value_of), map_arg(node.kwargs, value_of)
    if node.op == "get_attr":
        return attribute(root, str(node.target))
    if node.op == "call_module":
        return root.get_submodule(str(node.target))(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    return node.target(*args, **kwargs)


def attribute(root: nn.Module, name: str) -> Any:
    """``a.b.c`` of a module."""
    found: Any = root
    for part in name.split("."):
        found = getattr(found, part)
    return found


def trace(model: nn.Module, example: Tensor, opened: Collection[nn.Module], *, training: bool) -> fx.Graph:
    """The graph of ``model(example)``; nodes are named as the model's own modules and hold ``meta["value"]``.

    The model is in evaluation mode; ``training`` is what the opened modules' own forward sees. Raises NotStraight.
    """
    for module in opened:
        module.training = training
    wrapped = _Call(model)
    tracer = _Tracer(example, {wrapped, *opened})
    try:
        with tracer.recorded_factories():
            graph = tracer.trace(wrapped)
    except NotStraight:
        raise
    except Exception as error:  # whatever a user's forward makes of a stand-in for a tensor
        lines = str(error).splitlines() or [type(error).__name__]
        raise NotStraight(f"its forward cannot be followed: {lines[0][:100]}") from error
    finally:
        for module in opened:
            module.training = False
    for node in reversed(graph.nodes):
        # What was only asked for what the trace knows, such as a weight for its type.
        if not node.users and (node.op == "get_attr" or node.target is getattr):
            graph.erase_node(node)
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            if not str(node.target).startswith(ROOT):
                raise NotStraight("its forward uses a tensor that is no parameter and no buffer")
            node.target = str(node.target).removeprefix(ROOT)
    return graph


def opened(model: nn.Module, blocks: Sequence[nn.Module]) -> set[nn.Module]:
    """The modules to follow: the model, what holds blocks, and containers outside of blocks."""
    inside = {module for block in blocks for module in block.modules()}
    found = {model} | {m for m in model.modules() if isinstance(m, CONTAINERS)}
    if blocks:
        found |= {m for m in model.modules() if any(child in inside for child in m.children())}
    return found - inside
