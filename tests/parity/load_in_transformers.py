"""Loads exported folders in transformers and says what it compared.

    python tests/parity/load_in_transformers.py SOURCE EXPORT...

Each EXPORT must load without a missing, unexpected or mismatched key, in the type that its config.json names, and hold
SOURCE's weights, rounded to that type, bit for bit. Where SOURCE has `expected.safetensors` (input_ids, logits), the
logits of both are computed in f32 and compared. Exits with 1 if anything differs.
"""

import json
import pathlib
import sys

import safetensors
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def logits(folder, ids):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(input_ids=ids).logits


def check(source, folder):
    failures = []
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    for kind, keys in info.items():
        if keys:
            failures.append(f"{kind}: {keys}")
    name = json.loads((folder / "config.json").read_text())["dtype"]
    dtype = DTYPES[name]
    original = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).state_dict()
    loaded = model.state_dict()
    if original.keys() != loaded.keys():
        failures.append(f"names differ: {original.keys() ^ loaded.keys()}")
    for key in original.keys() & loaded.keys():
        if loaded[key].dtype != dtype or not torch.equal(original[key].to(dtype), loaded[key]):
            failures.append(f"{key}: {loaded[key].dtype}, not the source rounded to {dtype}")
    tied = model.config.tie_word_embeddings
    shared = model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    if tied != shared:
        failures.append(f"tie_word_embeddings is {tied}, but the head is {'' if shared else 'not '}the embedding")
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    stored = {key for file in files for key in load_file(folder / file)}
    text = f"{folder}: {len(files)} file(s), {len(stored)} tensors in {name}, {'tied' if tied else 'untied'}; "
    text += ", ".join(f"{kind} {len(keys)}" for kind, keys in info.items())
    expected = source / "expected.safetensors"
    if not expected.exists():
        expected = source.parent / "expected.safetensors"
    if expected.exists():
        goldens = load_file(expected)
        difference = (logits(folder, goldens["input_ids"]) - goldens["logits"]).abs().max().item()
        text += f"; logits {list(goldens['logits'].shape)} differ by at most {difference:.3g}"
        if dtype == torch.float32 and difference > 1e-3:
            failures.append(f"f32 logits differ by {difference}")
    print(text)
    for failure in failures:
        print(f"  FAILED {failure}")
    return not failures


def main():
    versions = f"transformers {transformers.__version__}, torch {torch.__version__}, safetensors {safetensors.__version__}"
    print(versions)
    source, *folders = map(pathlib.Path, sys.argv[1:])
    good = [check(source, folder) for folder in folders]
    print(f"{sum(good)} of {len(good)} folders as expected")
    sys.exit(0 if all(good) and good else 1)


main()
