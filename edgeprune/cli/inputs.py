"""Options that say what a model file's inputs are: sizes, values, the signature. `profilers.inputs` reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def input_option(command: F) -> F:
    """`--input`, several times: the command's parameter `inputs` (tuple of strings) goes to `given_for`."""
    return click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="NAME=VALUE|FILE.npy",
        help="values of an input: one that fills it, or an array that numpy saved; FILE:NAME=... for one file",
    )(command)


def shape_option(command: F) -> F:
    """`--shape`, several times: the command's parameter `shapes` (tuple of strings) goes to `given_for`."""
    return click.option(
        "--shape",
        "shapes",
        multiple=True,
        metavar="NAME=1x16",
        help="sizes of an input whose axes are open; FILE:NAME=1x16 for one file",
    )(command)


def signature_option(command: F) -> F:
    """`--signature`, several times: the command's parameter `signatures` (tuple of strings) goes to `given_for`."""
    return click.option(
        "--signature",
        "signatures",
        multiple=True,
        metavar="NAME",
        help="which signature of a .tflite file with several is run; FILE:NAME for one file",
    )(command)
