"""Candidates of one network as files: a template that fits it, found out from as few exports as it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from edgeprune.core.design import INPUTS, PruningPlan
from edgeprune.core.errors import EdgepruneError
from edgeprune.core.runtimes import Format
from edgeprune.exporters.codes import TemplateError
from edgeprune.exporters.template import Template
from edgeprune.exporters.widths import apart
from edgeprune.models.inputs import Inputs
from edgeprune.pruning.channels import follow
from edgeprune.pruning.structure import Structure
from edgeprune.pruning.surgery import cut

#: Exports at other widths that are looked at where the unpruned one alone does not tell how a file changes.
_EXPORTS = 2


class Slicer:
    """Files of the candidates of `network`, each in milliseconds."""

    def __init__(
        self,
        network: nn.Module,
        structure: Structure,
        example: Inputs,
        kind: Format,
        choose: Callable[[dict[str, int]], PruningPlan],
        prune: Callable[[PruningPlan], nn.Module],
    ) -> None:
        """Export `network`, and see that files of some candidates compute what these do; seconds, a few times.

        `example` (N, ...), N >= 2. `choose` gives a plan of widths, `prune` the network of a plan; which channels and
        weights these have does not matter. Raises TemplateError where candidates cannot be sliced.
        """
        gathers = any(group.name == INPUTS for group in structure.groups)
        self._template = Template.build(network, example, kind, input_layer=structure.input_layer if gathers else None)
        self._structure = structure
        # Batch normalisation is folded in there: its layers have other parameters.
        self._graph = follow(self._template.coded_network(), structure.shape)

        def check(widths: Mapping[str, int]) -> None:
            plan = choose({**widths})
            self.slice(prune(plan), plan, example)

        groups = structure.groups
        # The narrowest candidate and one of odd widths stand for all.
        usual = [
            {group.name: max(group.floor, group.snap(share * group.channels)) for group in groups}
            for share in (0.0, 0.55)
        ]
        try:
            for widths in usual:
                check(widths)
        except TemplateError as error:
            try:
                others = [self._coded(choose(widths)) for widths in apart(groups, _EXPORTS)]
                self._template.learn(others, example)
                for widths in (*usual, *apart(groups, 1)):
                    check(widths)
            except EdgepruneError as unseen:
                # Such a width may be one that surgery, or the converter, refuses: every candidate is exported then.
                raise TemplateError(f"{error.message}; {unseen.message}") from error
        #: Why candidates in which whole branches are gone cannot be sliced, if so.
        self.branches_refused: TemplateError | None = None
        if any(group.removable for group in groups):
            try:
                check({group.name: group.least for group in groups})
            except TemplateError as error:
                self.branches_refused = error

    def fits(self, plan: PruningPlan) -> bool:
        """Whether the candidate of `plan` can be sliced, as far as is known."""
        return self.branches_refused is None or all(plan.kept.values())

    def slice(self, pruned: nn.Module, plan: PruningPlan, check: Inputs | None = None) -> bytes:
        """The file of the candidate `pruned` by `plan`; with `check` (N, ...) it is run on these and compared.

        Raises TemplateError.
        """
        return self._template.slice(self._coded(plan), pruned, check, self._structure.graph.padded(plan))

    def _coded(self, plan: PruningPlan) -> nn.Module:
        return cut(self._template.coded_network(), self._structure.shape, plan, self._graph)
