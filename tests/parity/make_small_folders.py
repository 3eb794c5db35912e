"""Makes the small model folders that the import is tested on, with transformers.

    python tests/parity/make_small_folders.py core/model/tests/data

Each folder is what `save_pretrained` writes, plus `expected.safetensors`: token numbers and the f32 logits that
transformers computes for them. Weights follow a formula that the tests repeat: element i of a tensor is
((7·i + 13·len(name)) mod 64 − 32) / 128, plus 1 in norms: exact in every type.
"""

import json
import pathlib
import shutil
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

SIZES = dict(
    vocab_size=40,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=256,
)
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=10000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)


def old_spelling(config):
    """As transformers before version 5 wrote the same facts."""
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = {"type": rope["rope_type"], "factor": rope["factor"]}
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.40.0"
    return config


def make(folder, dtype, shard_size="5GB", rewrite=None, **keys):
    shutil.rmtree(folder, ignore_errors=True)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, **keys)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            i = torch.arange(parameter.numel())
            values = ((7 * i + 13 * len(name)) % 64 - 32) / 128 + (1 if "norm" in name else 0)
            parameter.copy_(values.reshape(parameter.shape))
    ids = (torch.arange(2 * 24) * 11 % 40).reshape(2, 24)
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    model.to(dtype).save_pretrained(folder, max_shard_size=shard_size)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if rewrite:
        path = folder / "config.json"
        path.write_text(json.dumps(rewrite(json.loads(path.read_text())), indent=2) + "\n")
        again = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.no_grad():
            assert torch.equal(again(input_ids=ids).logits, logits), "the rewritten configuration is another model"
    save_file({"input_ids": ids, "logits": logits.contiguous()}, folder / "expected.safetensors")
    print(f"{folder}: {sorted(path.name for path in folder.iterdir())}")


def main():
    root = pathlib.Path(sys.argv[1])
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    make(root / "untied-f32", torch.float32)
    make(
        root / "tied-bf16-sharded",
        torch.bfloat16,
        shard_size="4KB",
        tie_word_embeddings=True,
        attention_bias=True,
        mlp_bias=True,
        head_dim=12,
        eos_token_id=[2, 3],
        rope_parameters=LLAMA3,
    )
    linear = dict(rope_type="linear", rope_theta=50000.0, factor=4.0)
    make(root / "old-spelling-f16", torch.float16, rewrite=old_spelling, rope_parameters=linear)


main()
