#!/usr/bin/env python3
"""What PyTorch, torchao and Transformer Engine do on this card, in the lines of `fp8flow bench --device cuda --json`.

    docs/peer/card.py gemm|cast|attention|train [--like OURS.jsonl] [--modes MODE,...] [--json] [--dry-run]

Needs torch with CUDA; torchao, transformer_engine and flash_attn are used where they import, and what does not work is left
out with the reason. --like takes the shapes of training from the lines of ours: as many blocks, the same recompute. Times are
by CUDA events around batches, after a warm-up, over operands that no cache holds, as ours are; a wgrad writes bf16 here, where
ours adds to f32. --dry-run prints the cases and
needs none of this. Run ours and this in one sitting: `docs/peer/sitting.sh`.
"""

import argparse
import json
import sys
from pathlib import Path

LAYERS = [(8192, 4096, 4096), (8192, 4096, 1024), (8192, 4096, 14336), (8192, 14336, 4096)]
GEMMS = [(2048, 2048, 2048), (8192, 8192, 8192), *LAYERS]
CASTS = [(2048, 2048), (4096, 1024), (8192, 4096), (8192, 14336)]
# Sequences, tokens of each, query heads, key and value heads, elements of a head.
ATTENTION = [(4, 2048, 32, 8, 128), (1, 8192, 32, 8, 128)]
TRAINING = [(model, sequence) for model in ("1b", "8b") for sequence in (2048, 8192)]
BLOCKS = {"small": 8, "1b": 16, "8b": 32}
TOKENS = 8192

GEMM_MODES = ["torch-bf16", "torch-tensor", "torch-row"]
CAST_MODES = ["torch-tensor", "torch-row", "torch-row-col", "te-delayed", "te-current", "te-blocks"]
ATTENTION_MODES = ["sdpa-flash", "sdpa-cudnn", "flash-attn"]
TRAIN_MODES = ["bf16", "torchao-tensorwise", "torchao-rowwise", "te-delayed", "te-current", "te-blockwise"]
MODES = {"gemm": GEMM_MODES, "cast": CAST_MODES, "attention": ATTENTION_MODES, "train": TRAIN_MODES}

# FP8 and bf16 in TFLOP/s, memory in TB/s: as in core/bench/src/card/sheet.rs.
SHEETS = [
    (("H100", "PCIe"), (1513, 756, 2.0)),
    (("H100", "HBM3"), (1979, 989, 3.35)),
    (("H200", "NVL"), (1671, 835, 4.8)),
    (("H200",), (1979, 989, 4.8)),
    (("L40S",), (733, 362, 0.864)),
    (("RTX 4090",), (330, 165, 1.008)),
]
OTHERS = ("4090 D", "4090 Laptop", "H100 NVL", "H100 64GB")


def training(like):
    """Model, blocks, recompute, sequences and tokens of each: those of ours, or all that we would try."""
    if like is None:
        return [(m, BLOCKS[m], False, max(1, TOKENS // s), s) for m, s in TRAINING]
    lines = [json.loads(line) for line in Path(like).read_text().splitlines() if line.startswith("{")]
    runs = [
        (line["model"], line["layers"], line["recompute"] == "block", line["batch"], line["sequence"])
        for line in lines
        if line.get("what") == "train" and "model" in line
    ]
    if not runs:
        sys.exit(f"{like} has no lines of training on a card: write them with `fp8flow bench train --device cuda --json`")
    return list(dict.fromkeys(runs))


def cases(arguments):
    """What is measured: the case, its mode, and its shape by name."""
    for mode in arguments.modes:
        if arguments.what == "gemm":
            shapes = [dict(m=m, k=k, n=n) for m, k, n in GEMMS]
        elif arguments.what == "cast":
            shapes = [dict(m=m, k=k) for m, k in CASTS]
        elif arguments.what == "attention":
            shapes = [dict(zip(("batch", "sequence", "heads", "kv_heads", "head_dim"), shape)) for shape in ATTENTION]
        else:
            names = ("model", "layers", "recompute", "batch", "sequence")
            shapes = [dict(zip(names, run)) for run in training(arguments.like)]
        for shape in shapes:
            yield arguments.what, mode, shape


class Table:
    """Lines as they come, for people or for programs."""

    def __init__(self, as_json):
        self.as_json = as_json

    def head(self, head):
        if self.as_json:
            return print(json.dumps(head), flush=True)
        print(", ".join(f"{key} {value}" for key, value in head.items() if value is not None), end="\n\n")
        print(f"{'case':<20}{'by':<20}{'shape':<28}{'µs':>12}{'figure':>16}{'of sheet':>9}{'of card':>9}")

    def line(self, line):
        if self.as_json:
            return print(json.dumps(line), flush=True)
        keys = ("m", "k", "n", "batch", "sequence", "heads", "head_dim", "model", "layers")
        shape = " ".join(f"{key}{line[key]}" if key in ("model", "layers") else str(line[key]) for key in keys if key in line)
        row = f"{line['what']:<20}{line['by']:<20}{shape:<28}"
        if "left_out" in line:
            return print(f"{row}  left out: {line['left_out']}", flush=True)
        figure = next(f"{line[k]:.1f} {u}" for k, u in UNITS if k in line)
        shares = "".join(f"{share:>9.0%}" if share is not None else f"{'-':>9}" for share in (line["sheet_share"], line["ceiling_share"]))
        print(f"{row}{line['us']:>12.1f}{figure:>16}{shares}", flush=True)


UNITS = [("tokens_per_s", "tokens/s"), ("gflops", "GFLOP/s"), ("gbps", "GB/s")]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(MODES))
    parser.add_argument("--like", metavar="OURS.jsonl", help="take the shapes of training from ours")
    parser.add_argument("--modes", help="some of: " + ", ".join(sorted({mode for modes in MODES.values() for mode in modes})))
    parser.add_argument("--parameters", choices=["f32", "bf16"], default="f32", help="what is trained; ours is f32")
    parser.add_argument("--steps", type=int, default=5, help="training steps that count, after three that do not")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--dry-run", action="store_true", help="print the cases alone")
    found = parser.parse_args()
    known = MODES[found.what]
    found.modes = found.modes.split(",") if found.modes else known
    for mode in found.modes:
        if mode not in known:
            parser.error(f"{found.what} has no mode {mode}: {', '.join(known)}")
    return found


def main():
    asked = arguments()
    if asked.dry_run:
        for what, mode, shape in cases(asked):
            print(json.dumps({"what": what, "by": mode, **shape}))
        return
    from measure import Card

    table = Table(asked.json)
    card = Card(next((sheet for words, sheet in SHEETS if all(word in Card.name() for word in words)), None)
                if not any(other in Card.name() for other in OTHERS) else None)
    table.head(card.head())
    for what, mode, shape in cases(asked):
        for line in card.measure(what, mode, shape, asked):
            table.line(line)


if __name__ == "__main__":
    main()
