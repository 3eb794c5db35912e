"""The page on what limits a step, from what run.py has measured. Everything it says is computed."""

import textwrap

GEMMS = ["linear_fp8_forward", "linear_fp8_backward", "linear_forward", "linear_backward", "cross_entropy"]
ATTENTION = ["attention_forward", "attention_backward"]
# Costs that differ by no more count as equal.
EQUAL = 0.1
# A machine that gives less of its peak between the steps than it did at its best is used by others.
QUIET = 0.9


def table(heading, rows):
    """A table; the first column is text, the others are numbers."""
    rule = "| --- |" + " ---: |" * (len(heading) - 1)
    return "\n".join(["| " + " | ".join(heading) + " |", rule] + ["| " + " | ".join(row) + " |" for row in rows])


def prose(text):
    """A paragraph in lines of the book's length."""
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def percent(share):
    return f"{100 * share:.0f} %"


def maybe(value, form):
    return "" if value is None else form(value)


def number(digits):
    return lambda value: f"{value:.{digits}f}"


def named(name):
    return f"`{name}`"


def listed(names):
    names = list(names)
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def gap(part):
    """Milliseconds above the floor; all of them where no floor is known."""
    return max(0.0, part["ms"] - (part["floor_ms"] or 0.0))


def split(run):
    """The parts by name, without the sum, and the sum."""
    parts = {part["part"]: part for part in run["parts"]}
    return parts, parts.pop("step")


def roofline(run):
    """The table of a step."""
    rows = [
        [
            named(part["part"]), maybe(part["calls"], str), maybe(part["gflop"], number(3)),
            maybe(part["gbytes"], number(4)), maybe(part["floor_ms"], number(2)), part["bound"] or "",
            number(2)(part["ms"]), percent(part["share"]), maybe(part["of_floor"], percent),
        ]
        for part in run["parts"]
    ]
    return table(["part", "calls", "GFLOP", "GB", "floor, ms", "bound", "measured, ms", "share", "of floor"], rows)


def peak_between(run):
    """GFLOP/s of the FMA units between the steps of a run."""
    train = run["train"]
    return train["tokens_per_s"] * train["flops_per_token"] / 1e9 / train["peak_share"]


def quiet(machine, run):
    """Whether others used the machine."""
    peak = peak_between(run)
    text = f"Between the steps of the first table the FMA peak was {peak:.0f} GFLOP/s."
    if peak < QUIET * machine["fma_gflops"]:
        text += f""" That is {percent(peak / machine["fma_gflops"])} of the best that was seen: others used the machine, and the
            milliseconds on this page are worth little; shares are worth more, though work that waits for its slowest
            thread loses more than the peak does."""
    return prose(text)


def limits(run):
    """What the table says."""
    parts, step = split(run)
    bound = lambda kind: sum(part["share"] for part in parts.values() if part["bound"] == kind)
    gemms = [parts[name] for name in GEMMS if name in parts]
    floor, ms = (sum(part[key] for part in gemms) for key in ("floor_ms", "ms"))
    beaten = [named(name) for name, part in parts.items() if part["of_floor"] and part["of_floor"] > 1.0]
    first = "The arithmetic." if bound("compute") > bound("memory") else "Memory."
    text = prose(f"""{first} {percent(bound("compute"))} of the step's time is spent in parts that the FMA
        units bound at the least, {percent(bound("memory"))} in parts that memory bounds, the rest in what has no floor.
        The GEMMs of the linear layers, casts included, and those of the output head take {ms:.0f} of {step["ms"]:.0f} ms and
        run at {percent(floor / ms)} of their floor; the whole step runs at {percent(step["of_floor"])} of its own.""")
    if beaten:
        text += "\n\n" + prose(f"""{listed(beaten)} {"is" if len(beaten) == 1 else "are"} faster than the floor: what
            a part reads may still lie in the caches, and a copy fetches the lines that it overwrites, which its
            bandwidth does not count and which an update in place does not need.""")
    return text


def beside(runs):
    """The same parts under every recipe."""
    names = list(runs)
    plain = lambda part: part.replace("_fp8", "")
    columns = {name: {plain(part["part"]): part for part in run["parts"]} for name, run in runs.items()}
    order = list(dict.fromkeys(part for column in columns.values() for part in column))
    order.sort(key=lambda part: (part == "step", part == "other"))
    rows = []
    for part in order:
        row = [named(part)]
        for name in names:
            found = columns[name].get(part)
            row += ["", ""] if found is None else [number(2)(found["ms"]), maybe(found["of_floor"], percent)]
        rows.append(row)
    speeds = [f'{runs[name]["train"]["tokens_per_s"]:.0f}' for name in names]
    shares = [f'{percent(runs[name]["train"]["peak_share"])}' for name in names]
    rows.append(["tokens/s, of FMA peak"] + [cell for pair in zip(speeds, shares) for cell in pair])
    return table(["part"] + [cell for name in names for cell in (f"{named(name)}, ms", "of floor")], rows)


def next_tenth(run):
    """What makes the step a tenth shorter."""
    parts, step = split(run)
    wanted, whole = step["ms"] / 10, sum(gap(part) for part in parts.values())
    ranked = sorted(parts.items(), key=lambda item: -gap(item[1]))
    rows = []
    for name, part in ranked[:8]:
        floor = part["floor_ms"] or 0.0
        enough = part["ms"] - floor >= wanted
        alone = percent(floor / (part["ms"] - wanted)) if enough and floor else "–"
        rows.append([
            named(name), number(1)(part["ms"]), number(1)(floor), number(1)(gap(part)), percent(gap(part) / step["ms"]),
            maybe(part["of_floor"], percent), alone,
        ])
    kinds = [
        ("the GEMMs with their casts", lambda name: name in GEMMS),
        ("attention", lambda name: name in ATTENTION),
        ("everything else", lambda name: name not in GEMMS + ATTENTION),
    ]
    held = [(words, sum(gap(part) for name, part in parts.items() if of(name))) for words, of in kinds]
    held.sort(key=lambda item: -item[1])
    (first, most), others = held[0], sum(ms for _, ms in held[1:])
    says = listed([f"{first} are {most:.0f} ms" if first.startswith("the") else f"{first} is {most:.0f} ms"]
                  + [f"{words} {ms:.0f} ms" for words, ms in held[1:]])
    text = f"""A tenth of the step is {wanted:.0f} ms. All parts together are {whole:.0f} ms above their floors: {says}."""
    if whole < wanted:
        text += " Less than a tenth is left, so that only fewer operations could save one: no better kernel will."
    else:
        text += f" The next tenth is {percent(wanted / whole)} of all that."
        if most < wanted:
            text += " No kind of part can give it alone."
        else:
            text += f" It could come from {first} alone, by {percent(wanted / most)} of what they are above their floors."
            text += " From all the others together, too." if others >= wanted else (
                f" All the others together could not give it: at their floors, they would save {others:.0f} ms."
            )
    heading = ["part", "ms", "floor, ms", "above it, ms", "of the step", "of floor", "the tenth alone, at"]
    after = prose("""The last column says which share of its floor a part would have to reach to save the whole tenth by
        itself; a dash, that all of it would not be enough. What has no floor counts in full.""")
    return prose(text) + "\n\n" + table(heading, rows) + "\n\n" + after


def sequences(runs):
    """Cost of a token by the length of its sequence."""
    rows, rests, of_floors = [], [], []
    for run in runs:
        train = run["train"]
        parts, step = split(run)
        tokens = train["batch"] * train["sequence"]
        attention = sum(parts[name]["ms"] for name in ATTENTION)
        rest = 1e3 * (step["ms"] - attention) / tokens
        floors = [min(part["floor_ms"] or 0.0, part["ms"]) for name, part in parts.items() if name not in ATTENTION]
        of_floor = sum(floors) / (step["ms"] - attention)
        rests.append(rest)
        of_floors.append(of_floor)
        rows.append([
            f'{train["batch"]} × {train["sequence"]}', number(0)(1e3 * step["ms"] / tokens),
            number(0)(1e3 * attention / tokens), percent(attention / step["ms"]), number(0)(rest), percent(of_floor),
            percent(train["peak_share"]),
        ])
    apart = lambda values: max(values) / min(values) - 1
    heading = ["sequences × tokens", "step, µs a token", "attention, µs", "its share", "rest, µs", "rest, of its floor", "step, of FMA peak"]
    same = apart(rests) <= EQUAL
    text = prose(f"""Apart from attention, whose operations grow with the sequence, {
        "a token costs the same whatever its company" if same else "the cost of a token differs in this measurement"
        }: the dearest {percent(apart(rests))} more than the cheapest. Held against the floor, which moves with the
        machine's speed at that moment, the rest differs by {percent(apart(of_floors))}. A step of 2048 tokens has twice the
        tokens of the others to share the optimizer between.""")
    return text + "\n\n" + table(heading, rows)


def layers(runs):
    """Time and memory by the number of blocks."""
    by = {(run["layers"], run["recompute"]): run for run in runs}
    rows = []
    for count in sorted({run["layers"] for run in runs}):
        kept, again = by[count, "none"], by[count, "block"]
        rows.append(
            [str(count)]
            + [number(0)(kept["step_ms"]), number(0)(again["step_ms"]), f'{again["step_ms"] / kept["step_ms"]:.2f}']
            + [cell for run in (kept, again) for cell in (maybe(run["peak_gb"], number(3)), number(3)(run["planned_gb"]))]
        )
    kept = [run for run in runs if run["recompute"] == "none"]
    base, slope, worst = line_through([(run["layers"], run["step_ms"]) for run in kept])
    text = "A step is linear in the blocks: " if worst <= EQUAL else "The line that fits best is "
    text += f"{base:.0f} ms and {slope:.1f} ms a block; the row that is furthest off differs by {percent(worst)}."
    first, last = min(kept, key=lambda run: run["layers"]), max(kept, key=lambda run: run["layers"])
    blocks = last["layers"] - first["layers"]
    states = 16 * (last["parameters"] - first["parameters"]) / blocks / 1e6
    def growth(recompute, key):
        ends = [by[run["layers"], recompute][key] for run in (first, last)]
        return "unknown" if None in ends else f"{1e3 * (ends[1] - ends[0]) / blocks:.1f} MB"

    tokens = first["batch"] * first["sequence"]
    text += f""" A block is planned with {growth("none", "planned_gb")} (measured: {growth("none", "peak_gb")}), and with
        {growth("block", "planned_gb")} (measured: {growth("block", "peak_gb")}) where it is computed again for backward. {states:.1f} MB of both are its masters, moments and gradients, 16 bytes a parameter; the others are
        the codes of its weights and what is kept of {tokens} tokens, with recompute nothing but the block's input."""
    heading = ["blocks", "step, ms", "with recompute", "ratio", "memory, GB", "planned", "memory with recompute", "planned"]
    return prose(text) + "\n\n" + table(heading, rows)


def line_through(points):
    """Least squares: the value at 0, the slope, and the largest relative distance of a point."""
    n = len(points)
    x, y = (sum(point[i] for point in points) / n for i in (0, 1))
    slope = sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)
    base = y - slope * x
    return base, slope, max(abs((base + slope * a) / b - 1) for a, b in points)


def kernels(cases, unit, rate):
    """Cases of `bench gemm` or `bench cast`, a row a shape."""
    shape = lambda case: " × ".join(str(case[key]) for key in ("m", "k", "n") if case.get(key))
    measured = [case for case in cases if rate in case]
    names = list(dict.fromkeys(case["what"] for case in measured))
    rows = []
    for at in dict.fromkeys(map(shape, measured)):
        found = {case["what"]: case for case in measured if shape(case) == at}
        cell = lambda case: "" if case is None else f'{case[rate]:.{1 if rate == "gbps" else 0}f} ({percent(case["peak_share"])})'
        rows.append([at] + [cell(found.get(name)) for name in names])
    return table([f"{unit}"] + [named(name) for name in names], rows)


def peers(found):
    """What PyTorch does."""
    rows = [
        [
            f'{mode["mode"]}{", compiled" if mode["compile"] else ""}', number(0)(mode["tokens_per_s"]),
            maybe(mode.get("peak_gb"), number(2)),
        ] + [f'{mode["ratio"][name]:.2f}' for name in ("rowwise", "delayed")]
        for mode in found["modes"]
    ]
    s = "" if found["threads"] == 1 else "s"
    text = prose(f"""The same model, batch and optimizer in PyTorch with transformers, on {found["threads"]} thread{s}; `rowwise`
        there is torchao's emulation, the only FP8 training that PyTorch has on a CPU. Each was measured between two runs of
        ours, and the ratios are the mean of ours over it: tokens a second of fp8flow for one of PyTorch.""")
    text += "\n\n" + table(["PyTorch", "tokens/s", "memory, GB", "`rowwise` of ours", "`delayed` of ours"], rows)
    if found.get("gemm"):
        rows = [
            [f'{case["m"]} × {case["k"]} × {case["n"]}', named(case["what"]), number(0)(case["gflops"]), f'{case["ratio"]:.2f}']
            for case in found["gemm"]
        ]
        text += "\n\n" + prose("""GEMMs by themselves, beside `scaled_mm` of ours. PyTorch's `scaled_mm` is `torch._scaled_mm`;
            `dequant_mm` decodes to f32 and multiplies, as the emulation does.""")
        text += "\n\n" + table(["m × k × n", "PyTorch", "GFLOP/s", "ours over it"], rows)
    return text


def page(results):
    machine, runs = results["machine"], results["train"]
    base = runs["rowwise"]["train"]
    s = "" if machine["threads"] == 1 else "s"
    named_machine = (
        f'{machine["cpu"]}; {machine["isa"]}, {machine["threads"]} thread{s}; FMA peak {machine["fma_gflops"]:.1f} GFLOP/s; '
        f'copy {machine["copy_gbps"]:.2f} GB/s'
    )
    sections = [
        "# What limits a step",
        prose(f"""How fast a training step could be on a machine at the most, how fast it is, and where the difference goes. The
            step is that of [`bench train`](../reference/bench.md#bench-train): {base["parameters"] / 1e6:.1f} million parameters in
            {base["layers"]} blocks, {base["batch"]} × {base["sequence"]} tokens, AdamW. All figures are of one machine and come from
            `docs/experiments/roofline/run.py`, which also wrote this page: """),
        f"```text\n{named_machine}\n```",
        prose("""A part's *floor* is the larger of two times: its operations at the FMA peak, and its least traffic, every operand
            read once and every result written once, at the bandwidth of a copy. Peak and bandwidth are medians of what was
            measured between the steps, on the same threads: whoever else uses the machine slows both sides."""),
        quiet(machine, runs["rowwise"]),
        "## A step and its floor",
        limits(runs["rowwise"]),
        roofline(runs["rowwise"]),
        prose(f"""That is `rowwise`. Linear parts include their casts, whose operations do not count as work: they are the price of
            FP8. [Benchmarks](../reference/bench.md#parts-of-a-step) says what each part is, and how its operations and bytes
            are counted."""),
        "### By recipe",
        prose("""The products run in the f32 FMA units whatever the operands' type, so on a CPU FP8 saves traffic and memory, not
            operations. What sets the recipes apart is their casts: `bf16` rounds its weights once a step and casts nothing else, `delayed` casts with scales that are there, and
            `rowwise` looks for the largest element of each row and column first."""),
        beside(runs),
        "## What the next 10 % would take",
        next_tenth(runs["rowwise"]),
        "### Beyond the FMA units",
        prose("""Processors with AVX512-BF16 have a dot product of pairs of bf16, `VDPBF16PS`, which on this machine takes twice the
            operations of a fused multiply-add in the same time. fp8flow does not use it. Its manual promises neither the
            rounding nor the subnormal numbers that bits are counted on for; yet FP8 codes are bf16 numbers whose products and
            sums are never subnormal, and on them it was found here to have the bits of two fused multiply-adds, the odd
            element of a pair first: `docs/experiments/dot-product` asks it for 12.6 million pairs, with every pair of codes
            of E4M3, and of E4M3 and E5M2, among them. With the elements of each pair exchanged sums would keep their order and
            their bits. Other makers' processors have not been asked."""),
        "## How it scales",
        "### With the sequence",
        sequences(results["sequences"]),
        "### With the blocks",
        layers(results["layers"]),
        "## Kernels by themselves",
        prose("""Rates, and in brackets the share of the FMA peak or of a copy's bandwidth at the same moment. GEMMs in
            GFLOP/s, casts in GB/s that must move; [Benchmarks](../reference/bench.md) explains the cases. Small matrices
            stay in the caches, where a cast may be faster than a copy of memory."""),
        kernels(results["gemm"], "m × k × n", "gflops"),
        kernels(results["cast"], "m × k", "gbps"),
    ]
    if results.get("peers"):
        sections += ["## Beside PyTorch", peers(results["peers"])]
    sections += [
        "## Measure it yourself",
        "```sh\ncargo build --release\nfp8flow bench train --parts                       # the first table, here\n"
        "docs/experiments/roofline/run.py                  # everything; writes results.json and this page\n"
        "docs/experiments/roofline/run.py --peers FOLDER   # beside peer_train.py and peer_gemm.py\n```",
        prose(f"""Each row is the median of {results["steps"]} steps after one that warms up. Shares hold better than milliseconds on a
            machine that others use; a run that is to be kept wants the machine to itself."""),
    ]
    return "\n\n".join(sections) + "\n"
