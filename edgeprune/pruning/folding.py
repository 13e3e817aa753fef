"""Batch normalisation folded into the layer before it, as every export does first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from edgeprune.models.inputs import Inputs, cast, mapped, tensors_of
from edgeprune.pruning.constant import Constant

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYERS = (nn.Linear, *_CONVS, *_TRANSPOSED, Constant)
#: What reads no values of a tensor.
_LOOKS = {
    *(getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "layout", "requires_grad")),
    *(Tensor.size, Tensor.dim, Tensor.numel, Tensor.is_floating_point, Tensor.__len__),
}
#: What follows the channels of an input that each takes.
_SIDES: dict[type[nn.Module], tuple[int, ...]] = {nn.BatchNorm1d: (), nn.BatchNorm2d: (3, 3), nn.BatchNorm3d: (3, 3, 3)}
_NORMS = tuple(_SIDES)


def find_batchnorm_pairs(network: nn.Module, example: Inputs) -> list[tuple[str, str]]:
    """Names of (layer, batch normalisation) modules that may become one layer, in call order.

    Only where the layer's output goes to that normalisation alone and both are called once. The network is watched
    while it answers `example` (N, ...), as an export does. Where it cannot answer, nothing is folded.
    """
    modules = dict(network.named_modules())
    return [pair for pair in _watched(network, example) if _fits(*(modules[name] for name in pair))]


def _fits(layer: nn.Module, norm: nn.Module) -> bool:
    """Whether a layer can take in the batch normalisation of its output."""
    if not isinstance(norm, _NORMS) or norm.running_mean is None:
        return False
    if isinstance(layer, Constant):
        fits = layer.out == norm.num_features
    elif isinstance(layer, nn.Linear):
        fits = isinstance(norm, nn.BatchNorm1d) and layer.out_features == norm.num_features
    else:
        # In groups a transposed convolution's output channels are no axis of its weight.
        fits = isinstance(layer, _CONVS) or (isinstance(layer, _TRANSPOSED) and layer.groups == 1)
    return fits and (type(norm) in _NORMS or _begins_with_itself(norm))


def _watched(network: nn.Module, example: Inputs) -> list[tuple[str, str]]:
    """(layer, normalisation) whose output only that normalisation reads, each called once."""
    network = deepcopy(network).cpu().float().eval()
    uses, calls = _Uses(), Counter[str]()
    read: list[tuple[int, str]] = []

    def makes(name: str) -> Callable[..., None]:
        def seen(_: nn.Module, __: Any, output: Any) -> None:
            calls[name] += 1
            uses.made[id(output)] = (name, output)

        return seen

    def reads(name: str) -> Callable[..., None]:
        def seen(_: nn.Module, args: tuple[Any, ...]) -> None:
            calls[name] += 1
            read.extend((id(each), name) for each in args[:1] if id(each) in uses.made)

        return seen

    for name, module in network.named_modules():
        if isinstance(module, _LAYERS):
            module.register_forward_hook(makes(name))
        elif isinstance(module, _NORMS):
            module.register_forward_pre_hook(reads(name))
    inputs = mapped(cast(example, torch.float32), lambda x: x.detach().cpu())
    try:
        with torch.no_grad(), uses:
            answer = network(*tensors_of(inputs))
    except Exception:  # noqa: BLE001 - it is the user's code; whoever exports it says what is wrong with it
        return []
    uses.note(answer)
    pairs = [(uses.made[made][0], name) for made, name in read if uses.seen[made] == 1]
    return [pair for pair in pairs if calls[pair[0]] == calls[pair[1]] == 1]


def find_lone_batchnorms(network: nn.Module, pairs: list[tuple[str, str]]) -> list[str]:
    """Names of torch's batch normalisations with weights that are not among the `pairs`: no layer takes them in."""
    taken = {norm for _, norm in pairs}
    return [
        name
        for name, norm in network.named_modules()
        if type(norm) in _NORMS and name not in taken and norm.affine and norm.running_mean is not None
    ]


def fold_batchnorm(network: nn.Module, pairs: list[tuple[str, str]], lone: Sequence[str] = ()) -> nn.Module:
    """A copy in eval mode whose `pairs` are one layer each; the normalisation's place is taken by nn.Identity.

    A class derived from torch's keeps what it does besides, such as an activation. Those of `lone` take their
    statistics into their weights: what is left of them is 0, 1, and no epsilon.
    """
    folded = deepcopy(network).eval()
    for name, norm_name in pairs:
        name, layer = _layer(folded, name)  # noqa: PLW2901 - the layer may sit inside a SelectedInputs
        for leaf, value in _fuse(layer, folded.get_submodule(norm_name)).items():
            setattr(layer, leaf, nn.Parameter(value, requires_grad=False))
        parent, _, leaf = norm_name.rpartition(".")
        setattr(folded.get_submodule(parent), leaf, _without_norm(folded.get_submodule(norm_name)))
    for name in lone:
        norm = folded.get_submodule(name)
        norm.load_state_dict(_alone(norm), strict=False)
        norm.eps = 0.0  # type: ignore[assignment]
    return folded


def folded_state(network: nn.Module, pairs: list[tuple[str, str]], lone: Sequence[str] = ()) -> dict[str, Tensor]:
    """`fold_batchnorm(...).state_dict()` without the copy of the modules: what a template slices, fast."""
    state = {name: value.detach() for name, value in network.state_dict().items()}
    for name, norm_name in pairs:
        full, layer = _layer(network, name)
        state |= {f"{full}.{leaf}": each for leaf, each in _fuse(layer, network.get_submodule(norm_name)).items()}
        for key in [key for key in state if key.startswith(f"{norm_name}.")]:
            del state[key]
    for name in lone:
        state |= {f"{name}.{key}": value for key, value in _alone(network.get_submodule(name)).items()}
    return state


class _Uses(TorchFunctionMode):
    """Counts what is done with each tensor of `made`; to look at its shape is nothing."""

    def __init__(self) -> None:
        super().__init__()
        #: By the identity of a layer's output: the layer's name, and the output, which so remains.
        self.made: dict[int, tuple[str, Tensor]] = {}
        self.seen: Counter[int] = Counter()

    def note(self, values: Any) -> None:
        self.seen.update(id(each) for each in tree_leaves(values) if id(each) in self.made)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _LOOKS:
            self.note((args, kwargs))
        return func(*args, **(kwargs or {}))


class _PassThrough(TorchFunctionMode):
    """Batch normalisation answers with its input."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm:
            return args[0] if args else kwargs["input"]
        return func(*args, **kwargs)


class _WithoutNorm(nn.Module):
    """Mixed into a class derived from batch normalisation: all that it does but to normalise."""

    def forward(self, x: Tensor) -> Tensor:
        with _PassThrough():
            return super().forward(x)  # type: ignore[no-any-return]


def _without_norm(norm: nn.Module) -> nn.Module:
    """What is left of a normalisation that was folded. Takes `norm` over, which loses its tensors."""
    if type(norm) in _NORMS:
        return nn.Identity()
    own = type(norm)
    norm.__class__ = type(own.__name__, (_WithoutNorm, own), {"__module__": own.__module__})
    for named in (norm._parameters, norm._buffers):
        named.update(dict.fromkeys(named))
    return norm


def _begins_with_itself(norm: nn.Module) -> bool:
    """Whether a class derived from batch normalisation first normalises as torch's does, which folding takes out."""
    assert isinstance(norm, _BatchNorm)
    sides = next(sides for kind, sides in _SIDES.items() if isinstance(norm, kind))
    x = torch.randn(2, norm.num_features, *sides, generator=torch.Generator().manual_seed(0))
    norm = deepcopy(norm).cpu().float().eval()
    try:
        with torch.no_grad():
            plain = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
            whole = norm(x)
            return torch.allclose(_without_norm(norm)(plain), whole, rtol=1e-4, atol=1e-5)
    except Exception:  # noqa: BLE001 - it is the user's code, which may want anything
        return False


def _layer(network: nn.Module, name: str) -> tuple[str, nn.Module]:
    """The weighted layer `name`, also where surgery has meanwhile wrapped it into a SelectedInputs."""
    module = network.get_submodule(name)
    if isinstance(module, _LAYERS):
        return name, module
    return f"{name}.linear", network.get_submodule(f"{name}.linear")


def _alone(norm: nn.Module) -> dict[str, Tensor]:
    """What a normalisation holds once its statistics are in its weights."""
    assert isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        weight = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        return {
            "weight": weight,
            "bias": norm.bias - norm.running_mean * weight,
            "running_mean": torch.zeros_like(weight),
            "running_var": torch.ones_like(weight),
        }


def _fuse(layer: nn.Module, norm: nn.Module) -> dict[str, Tensor]:
    """Weight and bias of `layer` with `norm`, at its running statistics, behind it; a constant has a bias alone."""
    if isinstance(layer, Constant):
        with torch.no_grad():
            bias = layer.bias if layer.bias is not None else torch.zeros_like(norm.running_mean)  # type: ignore[arg-type]
            sides = [1] * max(len(each) for kind, each in _SIDES.items() if isinstance(norm, kind))
            assert isinstance(norm, _BatchNorm)
            return {"bias": _BatchNorm.forward(norm, bias.view(1, -1, *sides)).flatten()}
    fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
    transposed = {"transpose": True} if isinstance(layer, _TRANSPOSED) else {}
    with torch.no_grad():
        plain = torch.ones_like(norm.running_mean)  # type: ignore[arg-type]
        # A batch norm without weights of its own (affine=False) scales by 1 and shifts by 0.
        scale = plain if norm.weight is None else norm.weight
        shift = torch.zeros_like(plain) if norm.bias is None else norm.bias
        weight, bias = fuse(
            layer.weight,  # type: ignore[arg-type]
            layer.bias,  # type: ignore[arg-type]
            norm.running_mean,  # type: ignore[arg-type]
            norm.running_var,  # type: ignore[arg-type]
            norm.eps,  # type: ignore[arg-type]
            scale,  # type: ignore[arg-type]
            shift,  # type: ignore[arg-type]
            **transposed,
        )
    return {"weight": weight.detach(), "bias": bias.detach()}
