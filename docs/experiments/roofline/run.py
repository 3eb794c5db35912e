#!/usr/bin/env python3
"""Measures what limits a training step here and writes the page that says so.

    cargo build --release
    docs/experiments/roofline/run.py [--peers FOLDER]

FOLDER holds peer_train.py and peer_gemm.py, which print what PyTorch does; they run in turns with ours. Results are kept
in results.json beside this script, section by section, so that a section can be measured again (--only) and the page
written again without measuring (--page). Needs nothing but Python 3, and for the peers what they ask for.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from page import page

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PAGE = ROOT / "docs/src/explanation/performance.md"
RESULTS = HERE / "results.json"

# Name on the page, and how `bench train` is asked for it.
RECIPES = {
    "rowwise": ["--backend", "torchao-rowwise", "--recipe", "rowwise"],
    "delayed": ["--backend", "transformer-engine-hybrid", "--recipe", "delayed"],
    "bf16": ["--backend", "none"],
}
# Sequences of a step and their tokens: a step has 1024 tokens or, where a sequence alone has more, 2048.
SEQUENCES = [(8, 128), (4, 256), (2, 512), (1, 1024), (1, 2048)]
LAYERS = [2, 4, 8, 16]
# How peer_train.py is asked.
PEERS = [("f32", False), ("f32", True), ("bf16", False), ("bf16", True), ("rowwise", False), ("rowwise", True)]
PEER_SHAPES = [(2048, 2048, 2048), (2048, 1024, 4096)]
SECTIONS = ["train", "sequences", "layers", "gemm", "cast", "peers"]



def lines(command):
    """The objects that a command prints."""
    print("+", " ".join(map(str, command)), flush=True)
    ended = subprocess.run(command, text=True, stdout=subprocess.PIPE)
    if ended.returncode != 0:
        sys.exit(f"exit {ended.returncode}\n{ended.stdout}")
    return [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]


class Ours:
    """The binary, on a number of threads."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.machine = None

    def bench(self, what, *more):
        arguments = self.arguments
        threads = ["--threads", str(arguments.threads)] if arguments.threads else []
        found = lines([arguments.fp8flow, "bench", what, "--json", *threads, *map(str, more)])
        limits = {line["what"]: line for line in found if line["what"] in ("fma_peak", "copy")}
        peak = limits["fma_peak"]
        machine = {"cpu": processor(), "isa": peak["isa"], "threads": peak["threads"], "fma_gflops": peak["gflops"]}
        if "copy" in limits:
            machine["copy_gbps"] = limits["copy"]["gbps"]
            self.machine = machine
        return [line for line in found if line["what"] not in limits], machine

    def train(self, *more):
        return self.bench("train", "--steps", self.arguments.steps, *more)[0]

    def parts(self, *more):
        train, *parts = self.train("--parts", *more)
        return {"train": train, "parts": parts}


def processor():
    """The processor as `bench` names it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else "a processor without a name"


def reps(arguments):
    return ["--reps", arguments.reps] if arguments.reps else []


def measure_train(ours, _):
    return {name: ours.parts(*options) for name, options in RECIPES.items()}


def measure_sequences(ours, _):
    return [ours.parts("--batch", batch, "--sequence", sequence) for batch, sequence in SEQUENCES]


def measure_layers(ours, _):
    runs = [(layers, recompute) for layers in LAYERS for recompute in ("none", "block")]
    return [ours.train("--layers", layers, "--recompute", recompute)[0] for layers, recompute in runs]


def measure_gemm(ours, arguments):
    return ours.bench("gemm", *reps(arguments))[0]


def measure_cast(ours, arguments):
    return ours.bench("cast", *reps(arguments))[0]


def measure_peers(ours, arguments):
    """PyTorch's figures, each between two of ours."""
    scripts = Path(arguments.peers)
    threads = ours.bench("gemm", "--m", 64, "--k", 64, "--n", 64, "--reps", 1, "--backend", "none")[1]["threads"]
    python = [arguments.python]
    modes = []
    speed = lambda name: ours.train(*RECIPES[name])[0]["tokens_per_s"]
    for mode, compiled in PEERS:
        asked = [mode, "--threads", str(threads), "--steps", str(arguments.steps)] + ["--compile"] * compiled
        before = {name: speed(name) for name in ("rowwise", "delayed")}
        peer = lines(python + [str(scripts / "peer_train.py"), *asked])[-1]
        ratio = {name: (before[name] + speed(name)) / 2 / peer["tokens_per_s"] for name in before}
        keys = {key: peer[key] for key in ("mode", "compile", "tokens_per_s", "peak_gb")}
        modes.append({**keys, "ratio": {name: round(value, 3) for name, value in ratio.items()}})
    gemm = []
    for shape in PEER_SHAPES:
        found = lines(python + [str(scripts / "peer_gemm.py"), "--threads", str(threads), ",".join(map(str, shape))])
        options = [word for name, len_ in zip(("--m", "--k", "--n"), shape) for word in (name, len_)]
        mine, _ = ours.bench("gemm", *options, *reps(arguments))
        scaled = next(line["gflops"] for line in mine if line["what"] == "scaled_mm")
        for line in found:
            if "gflops" in line:
                keys = {key: line[key] for key in ("what", "m", "k", "n", "gflops")}
                gemm.append({**keys, "ratio": round(scaled / line["gflops"], 3)})
    return {"threads": threads, "modes": modes, "gemm": gemm}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fp8flow", default=str(ROOT / "target/release/fp8flow"), help="the binary")
    parser.add_argument("--threads", type=int, help="all cores by default")
    parser.add_argument("--steps", type=int, default=7, help="steps that count in each run (7)")
    parser.add_argument("--reps", type=int, help="repeats of a GEMM or cast; by default as `bench` has it")
    parser.add_argument("--peers", metavar="FOLDER", help="where peer_train.py and peer_gemm.py are")
    parser.add_argument("--python", default=sys.executable, help="runs the peers; needs what they ask for")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="measure these again, and keep the others")
    parser.add_argument("--page", action="store_true", help="only write the page again")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() and (arguments.page or arguments.only) else {}
    if not arguments.page:
        if arguments.only and "peers" in arguments.only and not arguments.peers:
            parser.error("--peers is needed")
        ours = Ours(arguments)
        measures = {
            "train": measure_train, "sequences": measure_sequences, "layers": measure_layers, "gemm": measure_gemm,
            "cast": measure_cast, "peers": measure_peers,
        }
        wanted = arguments.only or [name for name in SECTIONS if name != "peers" or arguments.peers]
        for name in wanted:
            results[name] = measures[name](ours, arguments)
            if name == "train" or "machine" not in results:
                results["machine"], results["steps"] = ours.machine, arguments.steps
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(page(results))


if __name__ == "__main__":
    main()
