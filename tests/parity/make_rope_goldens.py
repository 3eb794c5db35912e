"""Makes `rope.json`: the rotary frequencies that transformers computes, for every spelling of them in config.json.

    python tests/parity/make_rope_goldens.py > core/model/tests/data/rope.json
"""

import copy
import json

import numpy
import torch
import transformers
from transformers import AutoConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

SMALL = dict(model_type="llama", hidden_size=128, num_attention_heads=2, max_position_embeddings=8192)
LONG = dict(SMALL, max_position_embeddings=131072)
LLAMA31 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
LLAMA32 = dict(LLAMA31, factor=32.0, original_max_position_embeddings=8192, rope_theta=500000.0)
DEFAULT = dict(rope_type="default", rope_theta=500000.0)

CASES = {
    "nothing_said": SMALL,
    "old_theta": dict(SMALL, rope_theta=500000.0),
    "old_theta_int_head_dim_128": dict(SMALL, rope_theta=1000000, head_dim=128),
    "new_default": dict(SMALL, rope_parameters=DEFAULT),
    "old_linear_type": dict(SMALL, rope_theta=10000.0, rope_scaling=dict(type="linear", factor=4.0)),
    "old_linear_rope_type": dict(SMALL, rope_scaling=dict(rope_type="linear", factor=2.5)),
    "new_linear": dict(SMALL, head_dim=80, rope_parameters=dict(rope_type="linear", factor=3.0, rope_theta=250000.0)),
    "old_llama31": dict(
        LONG, head_dim=128, rope_theta=500000.0, rope_scaling=dict(LLAMA31, original_max_position_embeddings=8192)
    ),
    "new_llama32": dict(LONG, head_dim=64, rope_parameters=LLAMA32),
    "llama3_original_beside": dict(LONG, original_max_position_embeddings=4096, rope_parameters=LLAMA32),
    "llama3_original_defaults_to_max": dict(
        SMALL, max_position_embeddings=4096, rope_theta=10000.0, rope_scaling=dict(LLAMA31, factor=4.0)
    ),
    "scaling_before_parameters": dict(SMALL, rope_scaling=dict(type="linear", factor=2.0), rope_parameters=DEFAULT),
    "theta_among_parameters_before_beside": dict(SMALL, rope_theta=20000.0, rope_parameters=DEFAULT),
    "theta_beside_parameters": dict(SMALL, rope_theta=20000.0, rope_parameters=dict(rope_type="default")),
    "rope_type_before_type": dict(SMALL, rope_scaling=dict(type="default", rope_type="linear", factor=2.0)),
}


def case(name, config):
    rotary = LlamaRotaryEmbedding(AutoConfig.for_model(**copy.deepcopy(config)))
    assert rotary.attention_scaling == 1.0
    bits = rotary.inv_freq.numpy().astype(numpy.float32).view(numpy.uint32).tolist()
    return json.dumps({"name": name, "config": config, "inv_freq_bits": bits})


made_with = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}"
cases = ",\n".join(case(name, config) for name, config in CASES.items())
print(f'{{"made_with": {json.dumps(made_with)}, "cases": [\n{cases}\n]}}')
