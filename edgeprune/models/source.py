"""A model from its name: the zoo's, or a user's `FILE.py:FUNCTION`; and its weights from a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeprune.core.errors import ModelError, did_you_mean
from edgeprune.core.inputs import Shape, plain_shape, written
from edgeprune.core.joined import Joined
from edgeprune.core.reading import Source
from edgeprune.core.userfile import call_user, load_function
from edgeprune.models.checkpoint import read_checkpoint
from edgeprune.models.inputs import cast, made, outputs_of, tensors_of
from edgeprune.models.plain import is_waiting
from edgeprune.models.zoo import ZOO, build, is_finite

#: Inputs that a network is tried on.
BATCH = 2


def make_model(spec: str, shape: Shape, outputs: int) -> nn.Module:
    """The network that `spec` names; one of the zoo takes inputs (N, *shape) and gives (N, outputs).

    Raises ModelError for an unknown name, or a user's function that fails.
    """
    if spec in ZOO:
        if not plain_shape(shape):
            raise ModelError(
                f"model {spec} takes one input of real numbers, and the data have {written(shape)}",
                "give your own FILE.py:FUNCTION",
            )
        return build(spec, plain_shape(shape), outputs)
    if ".py" not in spec:
        raise ModelError(f"unknown model '{spec}'", did_you_mean(spec, ZOO) + " (or your own FILE.py:FUNCTION)")
    model = call_user(load_function(spec, "model"), spec)
    if not isinstance(model, nn.Module):
        raise ModelError(f"{spec} returned {type(model).__name__}, not a torch.nn.Module", "return the network itself")
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(
            f"{spec} returned a scripted module, which cannot be pruned", "return the nn.Module it came from"
        )
    if not is_waiting(model) and not is_finite(model):
        raise ModelError(f"{spec} returned weights with NaN or infinite values", "check how they were made")
    return model


@dataclass(frozen=True, slots=True)
class Answered:
    """The shape of what a network answers to two examples, (2, ...); of several outputs that of all side by side."""

    shape: tuple[int, ...]
    #: How several outputs lie side by side; None where there is one.
    layout: Joined | None


def answered(model: nn.Module, spec: str, shape: Shape, *, several: bool = False) -> Answered:
    """What `model` answers to two examples. Raises ModelError unless it is a tensor (2, ...), or `several` such."""
    model.eval()
    dtype = next((each.dtype for each in model.parameters() if each.is_floating_point()), torch.float32)
    try:
        with torch.no_grad():
            out = model(*tensors_of(cast(made(shape, BATCH, torch.zeros), dtype)))
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"model {spec} fails on {_shown(shape)}: {first}", "check that the model fits the data"
        ) from error
    outputs = outputs_of(out)
    if several and not isinstance(out, Tensor) and outputs and all(len(each) == BATCH for each in outputs.values()):
        given = out if isinstance(out, Mapping) else tuple(out)
        width = sum(each.numel() // BATCH for each in outputs.values())
        return Answered((BATCH, width), Joined.of(given, "output"))
    if not isinstance(out, Tensor) or out.ndim == 0 or len(out) != BATCH:
        got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ModelError(
            f"model {spec} gives {got} for two inputs, not a tensor ({BATCH}, ...)",
            "let forward return one tensor with a row for each input",
        )
    return Answered(tuple(out.shape), None)


def _shown(shape: Shape) -> str:
    if plain_shape(shape):
        return f"an input of shape {(BATCH, *plain_shape(shape))}"
    return f"two examples of {written(shape)}"


def load_weights(model: nn.Module, path: Path, say: Callable[[str], None]) -> None:
    """Fill `model` in place from a .safetensors file, a state dict saved by torch.save, or a trainer's checkpoint.

    `say` is told which entry of a checkpoint is taken, what its names lose, and where numbers of another precision were
    converted to the model's own (see `read_checkpoint`).

    Nothing is ever unpickled beyond tensors and plain data. Raises ModelError where the file is missing, cannot be
    read, does not fit the model, or holds other numbers than it computes with: complex ones, integers for fractions,
    quantised or sparse ones, NaN.
    """
    if not path.is_file():
        raise ModelError(f"weights file {path} does not exist", "check --weights")
    own = model.state_dict()
    found = read_checkpoint(path, own)
    for line in found.said:
        say(f"weights {path.name}: {line}")
    state = found.state
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    wrong = [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
    if missing or extra or wrong:
        what = []
        if missing:
            what.append(f"{len(missing)} missing (first: {missing[0]})")
        if extra:
            what.append(f"{len(extra)} unknown (first: {extra[0]})")
        if wrong:
            name = min(wrong)
            what.append(f"{name} is {tuple(state[name].shape)}, the model wants {tuple(own[name].shape)}")
        raise ModelError(
            f"weights {path.name} do not fit the model: {', '.join(what)}", "check --model, --weights and --data"
        )
    for name, tensor in state.items():
        if odd := _unlike(tensor, own[name]):
            raise ModelError(f"weights {path.name}: {name} {odd}", "save the state dict of a plain float32 network")
    # Layers may have their own ways of loading.
    with Source(path, ModelError, "check --model and --weights", "weights").guarded():
        model.load_state_dict(state)
    if not is_finite(model):
        raise ModelError(f"weights {path.name} hold NaN or infinite values", "check how they were trained")
    other = sorted({_name(state[name]) for name, tensor in own.items() if state[name].dtype != tensor.dtype})
    if other:
        say(f"weights {path.name}: {' and '.join(other)} converted to the model's own types")


def _unlike(given: Tensor, own: Tensor) -> str:
    """How a stored tensor differs in kind from the model's; "" where its values can be taken as they are."""
    if given.layout != torch.strided or given.is_quantized or given.is_meta:
        kind = "quantised" if given.is_quantized else "without data" if given.is_meta else "sparse"
        return f"is {kind}: expected a dense tensor of plain numbers"
    if given.is_complex() and not own.is_complex():
        return f"holds {_name(given)}: expected {_name(own)}, and imaginary parts would be lost"
    if given.is_floating_point() != own.is_floating_point() or (given.dtype == torch.bool) != (own.dtype == torch.bool):
        return f"holds {_name(given)}: expected {_name(own)}"
    return ""


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
