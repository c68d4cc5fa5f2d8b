"""What does a step need, before it is run?  Bytes, operations and hours, computed from a model's shape.

>>> memory("gpt2-xl", "mask").total / 1e9 < 24  # a mask of GPT-2 XL fits a GPU of 24 GB
True
"""

from lens.scale.cost.machines import MACHINES, Machine, Operations, fitting, this_cpu
from lens.scale.cost.memory import Memory, flops, kept, memory
from lens.scale.cost.shapes import KNOWN, Shape, shape
from lens.scale.cost.work import Work

__all__ = [
    "KNOWN", "MACHINES", "Machine", "Memory", "Operations", "Shape", "Work", "fitting", "flops", "kept", "memory",
    "shape", "this_cpu",
]  # fmt: skip
