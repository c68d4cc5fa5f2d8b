"""``python -m lens cost``: what a step needs, before it is run; ``--papers``: what the papers' tables would cost."""

from __future__ import annotations

from lens.commands.arguments import command
from lens.commands.evaluate import settings
from lens.mask import Config
from lens.scale import cost
from lens.scale.cost import MACHINES, papers


def add(commands) -> None:
    """Add the command ``cost`` to the parser's ``commands``."""
    option = command(commands, "cost", run, "memory, operations and hours of a step, computed from a model's shape")
    option("--model", default="mini", help="a known name (gpt2-xl, llama-3-8b, …), built-in or a folder")
    option("--step", default="mask", help="forward, lens, shift, rome, mask, finetune, … (default: mask)")
    option("--dtype", default="float32", help="of the model's weights (default: float32)")
    option("--batch", type=int, default=1, help="rows of text (default: 1; a mask's are settings)")
    option("--tokens", type=int, default=16, help="tokens of a row, of a mask's longest prompt (default: 16)")
    option("--devices", type=int, default=1, help="GPUs that share the layers (default: 1)")
    option("--checkpointing", action="store_true", help="run layers again in the backward pass")
    option("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the mask")
    option("--gpu", default="A100", help="T4, V100, A100, H100 or H200, for the time (default: A100)")
    option("--utilization", type=float, default=0.3, help="share of its peak that is assumed (default: 0.3)")
    option("--papers", action="store_true", help="GPU-hours of four tables of the two papers instead")


def run(args) -> None:
    if args.gpu not in MACHINES:
        raise ValueError(f"The speed of {args.gpu!r} is not known: give one of {', '.join(MACHINES)}.")
    if not 0 < args.utilization <= 1:
        raise ValueError(f"--utilization is {args.utilization}: give a share of the peak, above 0 and at most 1.")
    gpu = MACHINES[args.gpu]
    if args.papers:
        print(papers.markdown(papers.every_table(), gpu, args.utilization))
        return
    chosen = settings(args.set)
    for name in chosen:
        if name not in Config.__dataclass_fields__:
            raise ValueError(f"A mask's configuration has no setting {name!r}: see lens.mask.Config.")
    work = dict(batch=args.batch, tokens=args.tokens, config=Config(**chosen))
    spread = dict(devices=args.devices, checkpointing=args.checkpointing)
    told = cost.memory(args.model, args.step, dtype=args.dtype, **spread, **work)
    print(told)
    cards = ", ".join(cost.fitting(told.total)) or "none of the GPUs that we know: see --devices"
    print(f"\nWith a tenth to spare it fits {cards}.")
    done = cost.flops(args.model, args.step, **work)
    seconds = 3600 * done.hours(gpu, args.dtype, args.utilization)
    share = f"{args.utilization:.0%} of an {gpu.name}'s peak"
    print(f"\n{done.flops:.3g} operations: {1e3 * seconds:.3g} ms at {share}. All of this is computed, not measured.")
