"""A device that pretends to be MPS: it computes as the CPU does, and has no double precision."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

_CPU = torch.device("cpu")


class MpsTensor(Tensor):
    """A tensor of the pretended device; whatever is computed from it is one too."""

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Do what is asked, and raise where MPS would: doubles, other devices, NumPy."""
        kwargs = kwargs or {}
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return torch.device("mps")
        if func is Tensor.numpy:
            raise TypeError("can't convert mps device type tensor to numpy")
        if func is Tensor.cpu or (func is Tensor.to and _read_device(args, kwargs) == _CPU):
            with torch._C.DisableTorchFunctionSubclass():
                return args[0].as_subclass(Tensor).clone().to(*args[1:], **kwargs)
        _check_neighbours(args)
        args, kwargs = tree_map_only(torch.device, lambda _: _CPU, (args, kwargs))
        result = super().__torch_function__(func, types, args, kwargs)
        _check_precision(result)
        return result


class PretendedMps(TorchFunctionMode):
    """While it is on, tensors that are made on `mps`, or moved there, are of that device."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Do what is asked on the device that is asked for."""
        kwargs = kwargs or {}
        named = _read_device(args, kwargs)
        if named is None or named.type != "mps":
            return func(*args, **kwargs)
        args, kwargs = tree_map_only(torch.device, lambda _: _CPU, (args, kwargs))
        with torch._C.DisableTorchFunctionSubclass():
            return put_on_mps(func(*args, **kwargs))


def put_on_mps(tensor: Tensor) -> Tensor:
    """Return the tensor on the pretended device."""
    moved = tensor.as_subclass(MpsTensor)
    _check_precision(moved)
    return moved


def move_to_mps(module: nn.Module) -> nn.Module:
    """Return the module with its parameters on the pretended device."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            setattr(part, name, nn.Parameter(put_on_mps(parameter.detach())))
    return module


def _read_device(args: Any, kwargs: Any) -> torch.device | None:
    named = (value for value in (*args, *kwargs.values()) if isinstance(value, torch.device))
    return next(named, None)


def _check_neighbours(args: Any) -> None:
    for leaf in tree_leaves(args):
        if isinstance(leaf, Tensor) and not isinstance(leaf, MpsTensor) and leaf.ndim:
            raise RuntimeError("expected all tensors to be on the same device: mps and cpu")


def _check_precision(result: Any) -> None:
    for leaf in tree_leaves(result):
        if isinstance(leaf, MpsTensor) and leaf.dtype == torch.float64:
            raise TypeError("the MPS framework doesn't support float64; use float32 instead")
