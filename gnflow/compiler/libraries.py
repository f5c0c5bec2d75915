"""Build the kernels of a graph as one library. Inductor builds a library for each of them.

To read the header and to link takes the C++ compiler 0.6 seconds for each library. Most kernels themselves take a tenth
of that. So each kernel is put into a namespace, and one function calls them by their number:

    namespace k0 { void kernel(...) {...} }    namespace k1 { void kernel(...) {...} }    ...
    kernel(number, arguments)

The text of a kernel is what Inductor wrote, so the bits are the same. A kernel in another form is left to Inductor.

This module imports Inductor, which takes seconds. Import it where something is compiled.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any, NamedTuple

from torch._inductor import async_compile
from torch._inductor.async_compile import AsyncCompile
from torch._inductor.codecache import CppPythonBindingsCodeCache

HEADER = "#include <torch/csrc/inductor/cpp_prefix.h>"
ENTRY = re.compile(r'extern "C"\s+void\s+kernel\(')
FEW, MANY = 16, 64
"""A second library is built at the same time only if both have `FEW` kernels. No library has more than `MANY`."""


class Kernel(NamedTuple):
    """A kernel that can share a library."""

    types: Sequence[str]
    """The types of its arguments in C++."""
    code: str
    """Its text without the header, with an entry that is private to its namespace."""


class Place(NamedTuple):
    """A place marks a kernel in the module of its graph until the library is built: its number among the kernels."""

    number: int


class Together(AsyncCompile):
    """Takes the place of Inductor's class in the module of a graph, which makes one for all its kernels."""

    def __init__(self) -> None:
        super().__init__()
        self._kernels: list[Kernel] = []

    def cpp_pybinding(self, argtypes: list[str], source_code: str) -> Any:
        """Note a kernel for `wait`."""
        code = source_code.replace(HEADER, "")
        if len(ENTRY.findall(code)) != 1 or code.count('extern "C"') != 1 or "#include" in code or "#define" in code:
            return super().cpp_pybinding(argtypes, source_code)
        self._kernels.append(Kernel(argtypes, ENTRY.sub("void kernel(", code)))
        return Place(len(self._kernels) - 1)

    def wait(self, scope: dict[str, Any]) -> None:
        """Build the libraries, and put a function for each kernel into the module of the graph."""
        if self._kernels:
            ready = _build_all(self._kernels, async_compile.get_compile_threads(), self.submit)
            places = {name: value.number for name, value in scope.items() if isinstance(value, Place)}
            scope.update({name: ready[number] for name, number in places.items()})
        super().wait(scope)


@contextmanager
def share_libraries() -> Iterator[None]:
    """Let the graphs that are compiled or loaded meanwhile have shared libraries."""
    own = async_compile.AsyncCompile
    async_compile.AsyncCompile = Together  # type: ignore[misc]  # torch has no hook for how kernels are built
    try:
        yield
    finally:
        async_compile.AsyncCompile = own  # type: ignore[misc]  # as above


def _build_all(kernels: Sequence[Kernel], threads: int, submit: Callable[..., Any]) -> dict[int, Callable[..., None]]:
    """Return a function for each kernel, by its number."""
    count = max(1, ceil(len(kernels) / MANY), min(threads, len(kernels) // FEW))
    shares = [range(first, len(kernels), count) for first in range(count)]
    # A task that is submitted on one thread would wait for a lock that the thread itself holds.
    libraries = [_build([kernels[each] for each in share], submit if threads > 1 else None) for share in shares]
    return {
        number: _bind(load().kernel, place)
        for share, load in zip(shares, libraries, strict=True)
        for place, number in enumerate(share)
    }


def _build(kernels: Sequence[Kernel], submit: Callable[..., Any] | None) -> Callable[[], Any]:
    """Begin to build a library, and return a function that waits for it."""
    spaces = [f"namespace k{place} {{\n{kernel.code}\n}}\n" for place, kernel in enumerate(kernels)]
    cases = [f"case {place}: {_write_call(place, kernel.types)}; return;" for place, kernel in enumerate(kernels)]
    code = [
        "static void call(long place, PyObject* args) {", "switch (place) {", *cases, "}",
        'throw std::runtime_error("no such kernel");', "}",
    ]  # fmt: skip
    suffix = CppPythonBindingsCodeCache.suffix_template.format(
        entry_func="kernel",
        arg_len=2,
        call_entry_func="call(PyLong_AsLong(PyTuple_GET_ITEM(args, 0)), PyTuple_GET_ITEM(args, 1)); Py_RETURN_NONE;",
        extra_parse_arg="\n".join(code),
    )
    load: Callable[[], Any] = CppPythonBindingsCodeCache.load_async(
        "".join([HEADER, "\n", *spaces, suffix]), submit_fn=submit
    )
    return load


def _write_call(place: int, types: Sequence[str]) -> str:
    """Write the call of a kernel, with a check of how many arguments there are."""
    parsed = ", ".join(f"parse_arg<{each.replace('const ', '')}>(args, {n})" for n, each in enumerate(types))
    check = f'if (PyTuple_GET_SIZE(args) != {len(types)}) throw std::runtime_error("requires {len(types)} args")'
    return f"{check}; k{place}::kernel({parsed})"


def _bind(entry: Callable[[int, tuple[object, ...]], None], place: int) -> Callable[..., None]:
    return lambda *arguments: entry(place, arguments)
