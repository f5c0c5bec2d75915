"""Take several passes over a graph for one.

This module imports Inductor, which takes seconds. Import it where something is compiled.
"""

from torch._inductor.custom_graph_pass import CustomGraphPass
from torch.fx import Graph


class InTurn(CustomGraphPass):
    """Several passes, one after the other. torch takes a list of them from 2.13 on, gnflow also runs on 2.11."""

    def __init__(self, *passes: CustomGraphPass) -> None:
        self.passes = passes

    def __call__(self, graph: Graph) -> None:
        """Change the graph in place."""
        for each in self.passes:
            each(graph)

    def uuid(self) -> tuple[object, ...]:
        """Return what caches of compiled graphs know the passes by."""
        return tuple(each.uuid() for each in self.passes)
