"""Weights as trainers leave them: under an entry of a checkpoint, with prefixes, beside what is no tensor."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from edgeprune.core.errors import ModelError

#: Entries of a checkpoint under which trainers keep the network, the usual one first.
ENTRIES = ("state_dict", "model_state_dict", "model", "net", "network", "module", "params", "weights")
#: What averaged weights are called: they are only taken where nothing else is there.
AVERAGED = "ema"
#: What names begin with after torch.compile, DataParallel, or in a trainer's own module.
PREFIXES = ("_orig_mod.", "module.", "model.", "net.", "network.", "backbone.", "_model.")
#: Counts of batches that old and foreign checkpoints leave out; nothing is computed with them.
COUNTER = "num_batches_tracked"
_SAVE = "save it with torch.save(model.state_dict(), FILE)"
#: Plain data that trainers put beside their tensors.
_PLAIN = [argparse.Namespace, np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32)),
          type(np.dtype(np.int64)), type(np.dtype(np.bool_)), np.ndarray]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The weights by the model's own names, as far as there are such, and what was decided, a sentence each."""

    state: dict[str, Tensor]
    said: tuple[str, ...]


def read_checkpoint(path: Path, own: Mapping[str, Tensor]) -> Checkpoint:
    """The tensors in a .safetensors file or one that torch.save wrote, for a network whose state is `own`.

    Of a checkpoint the entry that holds tensors is taken, of averaged weights and others the others; prefixes go where
    names then fit better; missing counts of batches are the network's own. Nothing but tensors, numbers, text and
    argparse's Namespace is unpickled.

    Raises ModelError where the file cannot be read, or holds no state dict, or several and none of the usual names.
    """
    found = _loaded(path)
    state, said = _entry(found, path)
    named = {str(name): tensor for name, tensor in state.items()}
    named, prefixes = _stripped(named, own)
    if prefixes:
        said.append(f"names are taken without {' and '.join(repr(prefix) for prefix in prefixes)}")
    # The user's function may have wrapped the network that was saved.
    outer = {name.partition(".")[0] + "." for name in own}
    if not own.keys() & named.keys() and len(outer) == 1:
        wrapped = {f"{min(outer)}{name}": tensor for name, tensor in named.items()}
        if own.keys() & wrapped.keys():
            named = wrapped
            said.append(f"names are taken with '{min(outer)}' before them")
    for name, tensor in own.items():
        if name.endswith(COUNTER) and name not in named:
            named[name] = tensor
    return Checkpoint(named, tuple(said))


def _loaded(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([*_PLAIN, *_scalars()]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch's unpickler raises anything on a damaged file, IndexError and AttributeError included.
        if objects := _foreign(path):
            others = [name for name in objects if not name.startswith("torch.nn.")]
            what = f"an object of {others[0]}" if others else "a whole network"
            raise ModelError(f"weights {path} hold {what}, which is not unpickled: only tensors are", _SAVE) from error
        hint = "give a .safetensors file, or a state dict saved with torch.save(model.state_dict(), FILE)"
        raise ModelError(f"cannot read weights {path}: not a state dict of tensors, or damaged", hint) from error


def _scalars() -> list[Any]:
    """What numpy's scalars and arrays are rebuilt with, wherever this version of it keeps that."""
    return [np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]]


def _foreign(path: Path) -> list[str]:
    """Names of the objects in the file that are neither tensors nor plain data; nothing is unpickled."""
    with contextlib.suppress(Exception):
        known = {
            f"{each.__module__}.{each.__qualname__}" for each in (*_PLAIN, *_scalars()) if hasattr(each, "__qualname__")
        }
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
        return sorted(name for name in unsafe if name not in known)
    return []


def _tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(each, Tensor) for each in value.values())


def _entry(found: Any, path: Path) -> tuple[Mapping[Any, Tensor], list[str]]:
    """The mapping of tensors in what was loaded, and what is to be said of it."""
    if _tensors(found):
        return found, []
    if not isinstance(found, Mapping):
        raise ModelError(f"weights {path} hold no state dict", _SAVE)
    there = {str(key): value for key, value in found.items() if _tensors(value)}
    plain = [key for key in there if AVERAGED not in key.lower()]
    usual = [key for key in ENTRIES if key in plain]
    if usual:
        key = usual[0]
    elif len(plain) == 1 or (not plain and len(there) == 1):
        key = (plain or list(there))[0]
    elif there:
        raise ModelError(
            f"weights {path} hold several state dicts: {', '.join(there)}", f"take one of them out, and {_SAVE}"
        )
    else:
        raise ModelError(f"weights {path} hold no state dict", _SAVE)
    others = [each for each in there if each != key]
    said = [f"its entry '{key}' is taken" + (f", not {' or '.join(map(repr, others))}" if others else "")]
    if any(AVERAGED in each.lower() for each in others):
        said[0] += " (averaged weights: to use these, save them alone)"
    return there[key], said


def _stripped(named: dict[str, Tensor], own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The names without those prefixes with which fewer of them are the network's own, and these prefixes."""
    gone: list[str] = []

    def fitting(names: Mapping[str, Tensor]) -> int:
        return len(own.keys() & names.keys())

    while True:
        firsts = {name.partition(".")[0] + "." for name in named if "." in name}
        tries = [prefix for prefix in (*PREFIXES, *(firsts if len(firsts) == 1 else ())) if prefix in firsts]
        shorter = {prefix: {name.removeprefix(prefix): tensor for name, tensor in named.items()} for prefix in tries}
        # A prefix may hide another one, so what fits as well without it goes too, where nothing fitted.
        better = [
            prefix for prefix, names in shorter.items()
            if len(names) == len(named) and (fitting(names) > fitting(named) or fitting(named) == 0)
        ]  # fmt: skip
        if not better:
            break
        best = max(better, key=lambda prefix: fitting(shorter[prefix]))
        named = shorter[best]
        gone.append(best)
    return named, gone
