"""The cases of `card.py` on a card. Whatever fails is a line that says so: versions of all that is compared here move."""

import contextlib
import statistics
import time

import torch
import torch.nn.functional as F

import llama

E4M3 = torch.float8_e4m3fn
LARGEST = 448.0
# Bytes that operands have together at least, so that no cache holds them; milliseconds of a batch, and most calls of one.
ROTATED, BATCH_MS, MOST = 256 << 20, 10.0, 500


def seconds(call):
    """Of a call, by the median of batches: at least seven, and half a second."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    called = 0

    def batch(calls):
        nonlocal called
        start.record()
        for _ in range(calls):
            call(called)
            called += 1
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    for _ in range(3):
        batch(1)
    calls = int(min(max(BATCH_MS / 1e3 / max(batch(1), 1e-9), 1), MOST))
    batch(calls)
    times, spent = [], 0.0
    while not (len(times) >= 7 and spent >= 0.5 or times and spent >= 3.0):
        took = batch(calls)
        spent += took
        times.append(took / calls)
    return statistics.median(times)


def sets(make, size):
    """As many of what `make` makes as no cache holds."""
    return [make() for _ in range(max(1, min(64, -(-ROTATED // size))))]


def normal(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def cast(x, dim=None):
    """Codes and the reciprocal of their scales: one, or one along `dim`."""
    amax = x.abs().amax().float() if dim is None else x.abs().amax(dim, keepdim=True).float()
    scale = LARGEST / amax.clamp(min=1e-12)
    return (x.float() * scale).clamp(-LARGEST, LARGEST).to(E4M3), scale.reciprocal()


class Card:
    def __init__(self, sheet):
        self.sheet = sheet
        self.bf16 = self.copy = float("nan")

    @staticmethod
    def name():
        return torch.cuda.get_device_name()

    def head(self):
        """Measures the ceilings, as ours does, and says what is measured with."""
        torch.manual_seed(0)
        a, b = normal(8192, 8192), normal(8192, 8192)
        self.bf16 = 2 * 8192**3 / seconds(lambda _: a @ b.T)
        x, y = (torch.empty(1 << 30, dtype=torch.uint8, device="cuda") for _ in range(2))
        self.copy = 2 * (1 << 30) / seconds(lambda _: y.copy_(x))
        versions = {"torch": torch.__version__, "cuda": torch.version.cuda}
        for module in ("torchao", "transformer_engine", "flash_attn"):
            try:
                versions[module] = getattr(__import__(module), "__version__", "there")
            except Exception as error:
                versions[module] = f"none ({type(error).__name__})"
        free, total = torch.cuda.mem_get_info()
        head = {"what": "card", "card": self.name(), "memory_gb": total / 1e9, "free_gb": free / 1e9, **versions}
        return {**head, "sheet": self.sheet, "bf16_tflops": self.bf16 / 1e12, "copy_tbps": self.copy / 1e12}

    def measure(self, what, mode, shape, asked):
        """One case in one mode: lines, one of which may say that it was left out."""
        name = {"what": what, "by": mode, **shape}
        try:
            yield from getattr(self, what)(mode, shape, asked)
        except Exception as error:
            yield {**name, "left_out": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"}
        torch.compiler.reset()
        torch.cuda.empty_cache()

    def line(self, what, mode, shape, took, flops=None, moved=None, fp8=False):
        """With the shares of the data sheet and of what this card was seen to do."""
        if flops is not None:
            rate, unit, sheet, ceiling = flops / took, "gflops", self.sheet and 1e12 * self.sheet[0 if fp8 else 1], self.bf16
        else:
            rate, unit, sheet, ceiling = moved / took, "gbps", self.sheet and 1e12 * self.sheet[2], self.copy
        shares = {"sheet_share": rate / sheet if sheet else None, "ceiling_share": rate / ceiling}
        return {"what": what, "by": mode, **shape, "us": 1e6 * took, unit: rate / 1e9, **shares}

    def gemm(self, mode, shape, asked):
        m, k, n = shape["m"], shape["k"], shape["n"]
        # What a layer multiplies: its shape as ours names it.
        passes = {"fprop": (m, k, n), "dgrad": (m, n, k), "wgrad": (n, m, k)}
        for what, (rows, deep, cols) in passes.items():
            if mode == "torch-bf16":
                pairs = sets(lambda: (normal(rows, deep), normal(cols, deep)), 2 * deep * (rows + cols))
                took = seconds(lambda i: pairs[i % len(pairs)][0] @ pairs[i % len(pairs)][1].T)
            else:
                dim = 1 if mode == "torch-row" else None

                def pair():
                    a, factor_a = cast(normal(rows, deep), dim)
                    b, factor_b = cast(normal(cols, deep), dim)
                    return a, b.T, factor_a, factor_b.T if dim else factor_b

                pairs = sets(pair, deep * (rows + cols))

                def call(i):
                    a, b, factor_a, factor_b = pairs[i % len(pairs)]
                    fast = what == "fprop"
                    torch._scaled_mm(a, b, scale_a=factor_a, scale_b=factor_b, out_dtype=torch.bfloat16, use_fast_accum=fast)

                took = seconds(call)
            yield self.line(what, mode, shape, took, flops=2 * rows * deep * cols, fp8=mode != "torch-bf16")
            del pairs

    def cast(self, mode, shape, asked):
        m, k = shape["m"], shape["k"]
        inputs = sets(lambda: normal(m, k), 5 * m * k)
        faces = 1 if mode == "torch-row" else 2
        if mode.startswith("te-"):
            call = quantizer(mode)
        elif mode == "torch-row":
            call = torch.compile(lambda x: cast(x, 1))
        elif mode == "torch-row-col":
            call = torch.compile(lambda x: (*cast(x, 1), *(part.T.contiguous() for part in cast(x, 0))))
        else:

            def both(x):
                codes, factor = cast(x)
                return codes, codes.T.contiguous(), factor

            call = torch.compile(both)
        took = seconds(lambda i: call(inputs[i % len(inputs)]))
        yield self.line("cast", mode, shape, took, moved=(2 + faces) * m * k)

    def attention(self, mode, shape, asked):
        batch, tokens, heads, kv_heads, dim = shape.values()
        by_head = mode != "flash-attn"

        def make(heads):
            x = normal(batch, heads, tokens, dim) if by_head else normal(batch, tokens, heads, dim)
            return x.requires_grad_()

        q, k, v = make(heads), make(kv_heads), make(kv_heads)
        if by_head:
            from torch.nn.attention import SDPBackend, sdpa_kernel

            backend = SDPBackend.FLASH_ATTENTION if mode == "sdpa-flash" else SDPBackend.CUDNN_ATTENTION
            inside = sdpa_kernel(backend)

            def forward():
                return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            from flash_attn import flash_attn_func

            inside = contextlib.nullcontext()

            def forward():
                return flash_attn_func(q, k, v, causal=True)

        pairs = batch * heads * tokens * (tokens + 1) // 2
        with inside:
            out = forward()
            dout = torch.randn_like(out)
            with torch.no_grad():
                took = seconds(lambda _: forward())
            yield self.line("attention_forward", mode, shape, took, flops=4 * dim * pairs)
            backward = seconds(lambda _: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True))
            yield self.line("attention_backward", mode, shape, backward, flops=10 * dim * pairs)

    def train(self, mode, shape, asked):
        model, layers, recompute, batch, sequence = shape.values()
        torch.manual_seed(0)
        torch.cuda.reset_peak_memory_stats()
        linear, inside = layer(mode)
        net = llama.Llama(model, layers, sequence, recompute, linear).cuda()
        if asked.parameters == "bf16":
            net = net.bfloat16()
        if mode.startswith("torchao-"):
            from torchao.float8 import Float8LinearConfig, convert_to_float8_training

            config = Float8LinearConfig.from_recipe_name(mode.removeprefix("torchao-"))
            convert_to_float8_training(net.blocks, config=config)
        # Transformer Engine's layers are kernels already, and graphs break at them.
        if not mode.startswith("te-"):
            net.compile_parts()
        # As ours: AdamW with PyTorch's defaults, the gradient clipped.
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
        vocabulary, times = llama.SHAPES[model][0], []
        for _ in range(3 + asked.steps):
            ids = torch.randint(0, vocabulary, (batch, sequence + 1), device="cuda")
            torch.cuda.synchronize()
            began = time.perf_counter()
            with torch.autocast("cuda", torch.bfloat16), inside():
                loss = net(ids[:, :-1], ids[:, 1:])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
        took = statistics.median(times[3:])
        flops = llama.flops_per_token(model, layers, sequence)
        line = self.line("train", mode, shape, took, flops=flops * batch * sequence, fp8=True)
        tflops, used = line.pop("gflops") / 1e3, torch.cuda.max_memory_allocated() / 1e9
        extra = {"tokens_per_s": batch * sequence / took, "step_ms": 1e3 * took, "flops_per_token": flops, "tflops": tflops}
        extra |= {"fp8_peak_share": line["sheet_share"], "used_gb": used, "loss": loss.item()}
        yield {**line, **extra, "parameters": asked.parameters}


def quantizer(mode):
    """Transformer Engine's cast of a matrix, in both layouts."""
    import transformer_engine_torch as tex

    e4m3, both = tex.DType.kFloat8E4M3, {"rowwise": True, "columnwise": True}
    if mode == "te-blocks":
        from transformer_engine.pytorch.tensor.float8_blockwise_tensor import Float8BlockQuantizer

        return Float8BlockQuantizer(fp8_dtype=e4m3, block_scaling_dim=1, **both)
    from transformer_engine.pytorch.tensor import float8_tensor

    if mode == "te-current":
        return float8_tensor.Float8CurrentScalingQuantizer(fp8_dtype=e4m3, device=torch.device("cuda"), **both)
    scale, amax = torch.full((1,), 64.0, device="cuda"), torch.zeros(1, device="cuda")
    return float8_tensor.Float8Quantizer(scale=scale, amax=amax, fp8_dtype=e4m3, **both)


def layer(mode):
    """What makes the linear layers of blocks, and what a forward pass runs in."""
    if not mode.startswith("te-"):
        return lambda inputs, outputs: torch.nn.Linear(inputs, outputs, bias=False), contextlib.nullcontext
    import transformer_engine.pytorch as te
    from transformer_engine.common import recipe

    recipes = {"te-delayed": "DelayedScaling", "te-current": "Float8CurrentScaling", "te-blockwise": "Float8BlockScaling"}
    chosen = getattr(recipe, recipes[mode])()
    inside = lambda: te.fp8_autocast(enabled=True, fp8_recipe=chosen)
    return lambda inputs, outputs: te.Linear(inputs, outputs, bias=False), inside
