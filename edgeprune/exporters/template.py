"""Candidates in milliseconds: one real export, then its constants are cut to each candidate's channels.

The network is exported once with codes for weights (see `codes`). A candidate is the same surgery done twice, on the
coded network and on the real one; the first says which elements of the exported constants stay, the second what they
are worth. So no knowledge of the graph is needed beyond what depends on width without being a weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.core.errors import ExportError, SurgeryError
from edgeprune.core.runtimes import Format
from edgeprune.exporters.codes import Atlas, Gather, Lookup, Padded, TemplateError, assign_codes, decode
from edgeprune.exporters.formats import EXPORTERS, Skeleton
from edgeprune.exporters.parity import compare
from edgeprune.models.inputs import Inputs, cast, mapped, to_numpy
from edgeprune.pruning.attention import narrow_attention
from edgeprune.pruning.folding import find_batchnorm_pairs, find_lone_batchnorms, fold_batchnorm, folded_state
from edgeprune.pruning.inputs import SelectedInputs

#: A sliced file that differs by more than this from its network, relative to the outputs' scale, is refused.
_TOLERANCE = 1e-4


class Template:
    """An exported network from which candidates are sliced; they carry no metadata of ours.

    ```
    template = Template.build(network, example, "onnx", input_layer="fc1")
    coded = cut(template.coded_network(), shape, plan)      # the same surgery ...
    pruned = cut(network, shape, plan)                      # ... on both
    path.write_bytes(template.slice(coded, pruned))
    ```
    """

    def __init__(
        self,
        format: Format,
        coded: nn.Module,
        folded: tuple[list[tuple[str, str]], list[str]],
        skeletons: list[tuple[Skeleton, Atlas]],
    ) -> None:
        """Use `build`."""
        self.format: Format = format
        self._coded = coded
        self._folded = folded
        self._skeletons = skeletons

    @classmethod
    def build(cls, network: nn.Module, example: Inputs, format: Format, *, input_layer: str | None = None) -> Template:
        """Export the unpruned, not yet folded `network` once; seconds. `example` (N, ...), N >= 2.

        `input_layer` names the linear layer that candidates may replace by a SelectedInputs: the network is exported
        twice then, with and without a gather before that layer, since converters drop a gather of everything.
        Raises TemplateError where that cannot be exported, or the file not be sliced.
        """
        pairs = find_batchnorm_pairs(network, example)
        # The others are a product and a sum: their statistics, with codes, would be arithmetic to a converter.
        lone = find_lone_batchnorms(network, pairs) if EXPORTERS[format].drops_statistics else []
        coded = fold_batchnorm(network, pairs, lone).cpu().float()
        for module in coded.modules():
            # Surgery makes other operators of it, at whatever widths; what it refuses stays whole.
            if isinstance(module, nn.MultiheadAttention):
                with suppress(SurgeryError):
                    narrow_attention(module)
        known = assign_codes(coded, [f"{name}.running_{each}" for name in lone for each in ("mean", "var")])
        skeletons, missing = [], list[str]()
        for wrapped in (None, input_layer) if input_layer is not None else (None,):
            probe = deepcopy(coded)
            if wrapped is not None:
                _wrap(probe, wrapped)
            atlas = Atlas(known, _label_gathers(probe))
            try:
                skeletons.append((EXPORTERS[format].skeleton(probe, example, atlas), atlas))
            except TemplateError:
                raise
            except ExportError as error:
                # The same network with its own weights may well be exported.
                raise TemplateError(f"cannot slice: with other numbers as weights, {error.message}") from error
            missing += atlas.missing(coded)
        template = cls(format, coded, (pairs, lone), skeletons)
        # The converter's graph with the real weights back in place must compute what the network does.
        generator = torch.Generator().manual_seed(0)
        try:
            template.slice(coded, network, mapped(example, partial(_alike, generator=generator)))
        except TemplateError as error:
            if not missing:
                raise
            # What nothing reads may be dropped; here it was not that.
            message = f"cannot slice: the converter does arithmetic on '{missing[0]}' or drops it"
            raise TemplateError(message) from error
        return template

    def learn(self, coded: Sequence[nn.Module], example: Inputs) -> None:
        """Work out what else of the file depends on widths, from exports of `coded` networks, seconds each.

        Each is a `coded_network` after the surgery of another plan, best one in which no two groups have one width.
        `example` (N, ...), N >= 2. Raises TemplateError where that cannot be seen; then this template is of no use.
        """
        (skeleton, atlas), *gathering = self._skeletons
        if gathering:
            raise TemplateError("cannot slice: what depends on widths is not looked for where inputs are selected")
        # Codes alone are looked at: nothing has to be complete.
        made = [EXPORTERS[self.format].skeleton(each, example, Atlas(atlas.known, [])) for each in coded]
        skeleton.learn(made)

    def coded_network(self) -> nn.Module:
        """A fresh copy of the coded network, batch normalisation folded, for the candidate's surgery."""
        return deepcopy(self._coded)

    def slice(
        self, coded_pruned: nn.Module, pruned: nn.Module, check: Inputs | None = None, padded: Padded = ()
    ) -> bytes:
        """The file of the candidate `pruned`, whose surgery was also applied to `coded_pruned`.

        `pruned` keeps its batch normalisation: it is folded here. Where both have a SelectedInputs, column j of its
        weight must read feature `kept[j]`. With `check` (N, ...) the file is run on these inputs and compared.
        `padded` are the channels that its forward pads, in order (see `Graph.padded`).
        Raises TemplateError where the surgery left something else than whole channels, or the file differs.
        """
        plain, atlas = self._skeletons[0]
        lookup = Lookup(atlas.known, coded_pruned.state_dict(), folded_state(pruned, *self._folded))
        gathering, atlas = self._skeletons[-1]
        selects = any(len(gather.cut(lookup)) < len(gather.features) for gather in atlas.gathers)
        data = (gathering if selects else plain).fill(lookup, padded)
        if check is not None:
            self._check(data, pruned, check)
        return data

    def _check(self, data: bytes, pruned: nn.Module, inputs: Inputs) -> None:
        array = to_numpy(mapped(cast(inputs, torch.float32), lambda x: x.detach().cpu()))
        try:
            parity = compare(pruned, self.format, data, array)
        except ExportError as error:
            raise TemplateError(f"cannot slice: {error.message}") from error
        if not parity.max_abs <= _TOLERANCE * max(1.0, parity.scale):
            raise TemplateError(
                f"cannot slice: the {self.format} file differs by {parity.max_abs:.1e} from the network"
            )


def _alike(x: Tensor, generator: torch.Generator) -> Tensor:
    """Other real numbers of the same shape; the same integers, which may be indices."""
    return torch.rand(x.shape, generator=generator) if x.is_floating_point() else x


def _wrap(network: nn.Module, name: str) -> None:
    """Replace the linear layer `name` by one that gathers all of its inputs."""
    linear = network.get_submodule(name)
    if not isinstance(linear, nn.Linear):
        raise TemplateError(f"cannot slice: the input layer '{name}' is no linear layer")
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, SelectedInputs(linear, torch.arange(linear.in_features)))


def _label_gathers(network: nn.Module) -> list[Gather]:
    """Give each SelectedInputs a shuffled order, by which its constant is found in the file, and remember the true one.

    In ascending order a converter would drop the gather as doing nothing. The weights' columns stay, so the exported
    network computes nonsense; only its graph is used.
    """
    generator = np.random.default_rng(0)
    gathers = []
    for module in network.modules():
        if isinstance(module, SelectedInputs):
            features = module.kept.numpy().copy()
            label = features
            while len(features) > 1 and np.array_equal(label, features):
                label = generator.permutation(features)
            module.kept.copy_(torch.from_numpy(label))
            gathers.append(Gather(label, features, decode(module.linear.weight.detach().numpy())))
    return gathers
