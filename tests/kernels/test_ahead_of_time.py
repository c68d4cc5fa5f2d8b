"""Every Triton kernel compiles for the GPUs we name, without a GPU: no spills, shared memory in bounds, tensor cores.

Each module of ``lens.kernels.gpu`` lists its kernels in ``SIGNATURES``.  sm_75 (T4) is asked only of kernels without
a matrix product: Triton does not support its tensor cores, and ``lens.kernels.paths`` sends those operations to torch.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
from pathlib import Path

import pytest

import lens.kernels.gpu

SHARED = {75: 64, 80: 163, 89: 99, 90: 227}  # KiB that one program may use
SPILLED_BYTES = 32  # Triton 3.9 spills 24 in one kernel for sm_89; the pinned version spills none
POINTERS = {"*T": ("*fp32", "*fp16", "*bf16"), "*H": ("*fp16", "*bf16")}  # what stands for the dtypes of a kernel
CASES = []
for module in pkgutil.iter_modules(lens.kernels.gpu.__path__):
    text = (Path(lens.kernels.gpu.__path__[0]) / f"{module.name}.py").read_text(encoding="utf-8")
    CASES += [(module.name, capability) for capability in SHARED if "@triton.jit" in text and "SIGNATURES" in text]

triton = pytest.importorskip("triton", reason="Triton has no build for this system; the kernels are for Linux")


def compiled(function, arguments: dict, constants: dict, options: dict, pointer: str, capability: int):
    """The kernel as machine code; an integer in ``arguments`` is a stride known to be that number."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {name: t for name, t in arguments.items() if isinstance(t, str)}
    signature = {name: pointer if t in POINTERS else t for name, t in types.items()}
    fixed = {name: t for name, t in arguments.items() if isinstance(t, int)} | constants
    # What Triton finds out itself at a call: torch's pointers, and the rows of its matrices, are aligned to 16.
    aligned = [n for n, t in signature.items() if t.startswith("*") or n.endswith("_row") or n in ("rows", "columns")]
    places = {(function.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    signature |= dict.fromkeys(fixed, "constexpr")
    source = ASTSource(function, signature, fixed, places)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def spilled(ptx: str, capability: int, tmp_path: Path) -> tuple[int, int]:
    """(registers, bytes spilled to memory) as the assembler reports them."""
    from triton.backends.nvidia import compiler

    (tmp_path / "k.ptx").write_text(ptx)
    target = re.search(r"\.target (sm_\w+)", ptx)[1]  # Hopper's is sm_90a or sm_90, as Triton's version has it
    command = [compiler.get_ptxas(capability).path, "-v", f"--gpu-name={target}", "k.ptx", "-o", "k.cubin"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stderr
    spills = sum(int(b) for b in re.findall(r"(\d+) bytes spill (?:stores|loads)", said))
    return int(re.search(r"Used (\d+) registers", said)[1]), spills


@pytest.mark.slow
@pytest.mark.parametrize("name, capability", CASES)
def test_kernels_compile_without_spills_and_use_tensor_cores(name, capability, tmp_path):
    module = importlib.import_module(f"lens.kernels.gpu.{name}")
    for entry, (arguments, constants, options) in module.SIGNATURES.items():
        function = getattr(module, entry.split(":")[0])
        has_dot = "tl.dot(" in Path(module.__file__).read_text(encoding="utf-8")
        if has_dot and capability < 80:
            continue
        for pointer in next((POINTERS[t] for t in arguments.values() if t in POINTERS), ("*fp32",)):
            if pointer == "*bf16" and capability < 80:
                continue
            what = f"{entry} for {pointer} on sm_{capability}"
            kernel = compiled(function, arguments, constants, options, pointer, capability)
            registers, spills = spilled(kernel.asm["ptx"], capability, tmp_path)
            assert spills <= SPILLED_BYTES, f"{what} spills {spills} bytes with {registers} registers"
            assert kernel.metadata.shared <= SHARED[capability] * 1024, f"{what} uses {kernel.metadata.shared} bytes"
            if has_dot and pointer != "*fp32":
                assert re.search(r"mma\.sync|wgmma", kernel.asm["ptx"]), f"{what} uses no tensor core"


@pytest.mark.parametrize("capability", [75, 80, 89, 90])
def test_the_masks_decision_is_rounded_step_by_step(capability):
    """A fused multiply-add rounds once where the CPU rounds twice, and the masks would part at the last bit."""
    from lens.kernels.gpu import masking

    arguments, constants, options = masking.SIGNATURES["_mask_kernel:hard"]
    ptx = compiled(masking._mask_kernel, arguments, constants, options, "*fp32", capability).asm["ptx"]
    assert "mul" in ptx and not re.search(r"\bfma\.", ptx)


def test_every_kernel_is_in_the_table():
    """A kernel that nobody compiles here is a kernel that nobody knows to compile."""
    for module in pkgutil.iter_modules(lens.kernels.gpu.__path__):
        text = (Path(lens.kernels.gpu.__path__[0]) / f"{module.name}.py").read_text(encoding="utf-8")
        kernels = set(re.findall(r"def (_\w+_kernel)\(", text))
        table = getattr(importlib.import_module(f"lens.kernels.gpu.{module.name}"), "SIGNATURES", {})
        assert kernels == {entry.split(":")[0] for entry in table}
