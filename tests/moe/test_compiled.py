"""A mixture's step under `torch.compile`, as transformers' `generate` compiles it."""

import json
import subprocess
import sys

SCRIPT = """
import json, sys
import torch
from transformers import CompileConfig

from finlora.experts.base_model import load_base
from finlora.router.arrow import make_arrow
from finlora.router.settings import XLoRASettings
from finlora.router.train import new_mixture

base_folder, *folders = sys.argv[1:]
base = load_base(base_folder, "none", device="cpu")
prompt = torch.randint(3, 259, (1, 11), generator=torch.Generator().manual_seed(0))
greedy = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "cache_implementation": "static"}
# What can be traced is up to FinLoRA; what is made of it takes PyTorch much longer.
config = CompileConfig(fullgraph=True, dynamic=False, mode=None, backend="eager")
config._compile_all_devices = True
experts = {folder: folder for folder in folders}
mixtures = [
    new_mixture(base, experts, XLoRASettings(top_k=1, context_width=12), seed=0),
    make_arrow(base, experts, top_k=1),
]
for mixture in mixtures:
    results = [mixture.generate(prompt, **greedy), mixture.generate(prompt, compile_config=config, **greedy)]
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    print(json.dumps([*(result.tolist() for result in results), graphs]))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
"""


def test_steps_are_one_graph_and_give_the_same_tokens(
    tmp_path, make_tiny_llama, tiny_tokenizer, make_expert
) -> None:
    model = make_tiny_llama(num_hidden_layers=1)
    model.save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    experts = [
        make_expert("a", seed=1, model=make_tiny_llama(num_hidden_layers=1), r=2),
        make_expert("b", seed=2, model=model, r=3, target_modules=["k_proj", "up_proj"]),
    ]
    # In a process of its own: the run-time checks of shapes in tests cannot be compiled.
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "base"), *map(str, experts)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 2
    for plain, compiled, graphs in lines:
        assert compiled == plain
        assert graphs == 1
