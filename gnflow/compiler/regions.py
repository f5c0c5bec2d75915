"""Compile regions, the pure functions of a step. The step around them stays plain Python.

Each region counts its graphs, so that a recompilation is never silent, and its seconds of compilation, so that they can
be left out of a run's time.
"""

import subprocess
import time
from collections.abc import Callable
from typing import Literal, TypeAlias, cast

import torch

from gnflow.compiler import toolchain
from gnflow.compiler.stages import CompiledStages
from gnflow.curvature.staged import Staged
from gnflow.errors import EnvironmentProblem
from gnflow.optim.protocol import Region, copy_code

Notice: TypeAlias = Callable[[str], None]
"""It is called with the name of a region that is about to be compiled."""


def ignore_notice(name: str) -> None:
    """Ignore that a region is about to be compiled."""


class Compiled:
    """One compiled region, called like its function."""

    def __init__(
        self, name: str, function: Callable[..., object], mode: str, fullgraph: bool, notice: Notice = ignore_notice
    ) -> None:
        patches = {} if mode == "default" else torch._inductor.list_mode_options(mode)

        def compile_graph(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
            # This takes seconds to import, and a finished run never compiles.
            from torch._functorch import config as autograd
            from torch._inductor import config
            from torch._inductor.compile_fx import compile_fx

            from gnflow.compiler.keeping import KeepCostly
            from gnflow.compiler.libraries import share_libraries
            from gnflow.compiler.passes import InTurn
            from gnflow.compiler.products import UseOneDNN
            from gnflow.compiler.sums import PrepareSums
            from gnflow.compiler.tables import ComputeOnce

            patches["custom_partitioner_fn"] = KeepCostly()
            patches["post_grad_custom_pre_pass"] = PrepareSums()
            patches["post_grad_custom_post_pass"] = InTurn(ComputeOnce(), UseOneDNN())
            patches["deterministic"] = torch.are_deterministic_algorithms_enabled()
            if toolchain.find_compiler() not in config.cpp.cxx:
                patches["cpp.cxx"] = (None, toolchain.find_compiler())
            self.graphs.append(len(graph.graph.nodes))
            if place := _find_break(graph):
                self.breaks.append(place)
            # By default the reverse graph is compiled at its first call, where its seconds are not seen.
            with autograd.patch(force_non_lazy_backward_lowering=True), share_libraries():
                return cast("Callable[..., object]", compile_fx(graph, inputs, config_patches=patches))

        self.name, self.fullgraph = name, fullgraph
        self._notice: Notice | None = notice
        self.graphs: list[int] = []
        """Number of nodes of each graph compiled so far."""
        self.compilations: list[int] = []
        """Number of graphs from each call that compiled: a second graph is a break, a second call a recompilation."""
        self.breaks: list[str] = []
        """For each break between two graphs: its reason, and the line of source where it is."""
        self.kernels = 0
        """Number of kernels that were generated for the graphs, those of their reverse passes included."""
        self.seconds = 0.0
        """Seconds of all calls that compiled."""
        self._function = torch.compile(copy_code(function), backend=compile_graph, fullgraph=fullgraph, dynamic=False)

    def __call__(self, *arguments: object) -> object:
        """Return the result of the function."""
        if self._notice is not None:
            self._notice(self.name)
            self._notice = None
        known, kernels, start = len(self.graphs), _count_kernels(), time.perf_counter()
        try:
            result = self._function(*arguments)
        except (RuntimeError, OSError) as error:
            if problem := self._find_problem(error):
                raise problem from error
            raise
        if len(self.graphs) > known:
            self.seconds += time.perf_counter() - start
            self.kernels += _count_kernels() - kernels
            if self.fullgraph:
                # Inductor may have Dynamo trace a function twice before it accepts the graph.
                del self.graphs[known:-1]
            self.compilations.append(len(self.graphs) - known)
        return result

    def _find_problem(self, error: Exception) -> EnvironmentProblem | None:
        """Return the problem of this machine that kept a region from being compiled.

        It is None if the region itself is at fault.
        """
        from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

        cause = getattr(error, "inner_exception", error)  # of a BackendCompilerFailed
        if not isinstance(cause, OSError | CppCompileError | InvalidCxxCompiler | subprocess.SubprocessError):
            return None
        said = toolchain.find_first_error(cause.output if isinstance(cause, CppCompileError) else str(cause))
        return EnvironmentProblem(
            f"region `{self.name}` cannot be compiled on this machine: {said}\n"
            "`gnflow doctor` says more; --set compile.mode=off runs without compiling"
        )


def _count_kernels() -> int:
    """Count the kernels that this process has generated so far."""
    from torch._inductor import metrics

    return metrics.generated_kernel_count


def _find_break(graph: torch.fx.GraphModule) -> str | None:
    """Say why a graph ends before its function does, and where; None if it does not."""
    reason = getattr(graph, "compile_subgraph_reason", None)
    if reason is None or not reason.graph_break:
        return None
    where = f" at {reason.user_stack[-1].filename}:{reason.user_stack[-1].lineno}" if reason.user_stack else ""
    return f"{str(reason.reason).splitlines()[0]}{where}"


class Compiler:
    """A `Jit` that keeps the regions which it compiled."""

    def __init__(
        self, mode: Literal["default", "max-autotune"], fullgraph: bool, notice: Notice = ignore_notice
    ) -> None:
        self.mode, self.fullgraph, self.notice = mode, fullgraph, notice
        self.regions: list[Compiled] = []
        # A graph that runs once for each layer cannot be a CUDA graph: its own earlier results are its arguments.
        stages = mode if mode == "default" else f"{mode}-no-cudagraphs"
        self._stages = CompiledStages(lambda name, function: self._compile(name, function, stages), fullgraph)

    def __call__(self, name: str, region: Region, /, every: int | None = None) -> Region:
        """Return a region that is compiled at its first call, or whose stages are, if it has any.

        With `every` the function is returned as it is.
        """
        if every is not None:
            return region
        if isinstance(region, Staged):
            return cast("Region", region.on(self._stages))
        return cast("Region", self._compile(name, region, self.mode))

    def _compile(self, name: str, function: Callable[..., object], mode: str) -> Compiled:
        compiled = Compiled(name, function, mode, self.fullgraph, self.notice)
        self.regions.append(compiled)
        return compiled

    def count_graphs(self) -> dict[str, int]:
        """Count the graphs compiled so far, by region."""
        return {region.name: len(region.graphs) for region in self.regions if region.graphs}

    def sum_seconds(self) -> float:
        """Return the seconds of compilation so far."""
        return sum(region.seconds for region in self.regions)
