"""The GPU's kernel compiled without a GPU: it fits the chips that it is for. `make kernels`."""

import os
import re
import subprocess
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="triton is not installed: `make kernels` does so in .gnflow/")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("TRITON_INTERPRET=1 is set: kernels are not compiled", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from gnflow.models.attention_tangent_triton import choose_launch, compute_tile  # noqa: E402

SHARED = {80: 163 * 1024, 90: 227 * 1024}
"""Bytes that a block may have, by compute capability: A100, H100."""
POINTERS = ("query", "key", "value", "dquery", "dkey", "dvalue", "out", "tangent")
NUMBERS = ("time", "size")
PRECISIONS = {"ieee": "*fp32", "tf32": "*fp32", "bfloat16": "*bf16"}
pytestmark = pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")


def compiled(size, precision, capability):
    tile = choose_launch(size, precision == "ieee")
    constants = {"QUERIES": tile.queries, "KEYS": tile.keys, "SIZE": size}
    constants["PRECISION"] = "ieee" if precision == "ieee" else "tf32"
    kinds = dict.fromkeys(POINTERS, PRECISIONS[precision]) | dict.fromkeys(NUMBERS, "i32") | {"scale": "fp32"}
    kinds |= dict.fromkeys(constants, "constexpr")
    names = list(compute_tile.arg_names)
    # What a launch finds of torch's own tensors: all but the length are multiples of 16.
    even = {(names.index(name),): [["tt.divisibility", 16]] for name in kinds if name in (*POINTERS, "size")}
    source = ASTSource(
        compute_tile,
        {name: kinds[name] for name in names},
        {(names.index(n),): value for n, value in constants.items()},
        even,
    )
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def usage(cubin, directory):
    """Registers of a thread, and bytes of its stack: what was spilled."""
    path = directory / "kernel.cubin"
    path.write_bytes(cubin)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    said = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True).stdout
    return tuple(int(re.search(rf"{name}:(\d+)", said).group(1)) for name in ("REG", "STACK"))


@pytest.mark.parametrize("capability", SHARED)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("size", [16, 64, 128, 256])
def test_it_fits(size, precision, capability, tmp_path):
    made = compiled(size, precision, capability)
    registers, spilled = usage(made.asm["cubin"], tmp_path)
    print(f"size {size}, {precision}, sm_{capability}: {made.metadata.shared} bytes shared, {registers} registers")
    assert made.metadata.shared <= SHARED[capability]
    assert spilled == 0 or size > 128
    cores = "mma.sync" in made.asm["ptx"] or "wgmma" in made.asm["ptx"]
    assert cores == (precision != "ieee"), "tensor cores where they are precise enough"
