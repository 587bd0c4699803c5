"""Updates of linear layers as a PEFT adapter folder that PEFT loads as it is."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from peft import LoraConfig

from ...experts.adapter import WEIGHTS_FILE, sort_targets
from ..bank import PEFT_PREFIX
from ..checkpoint import save_tensors
from .updates import Update


def save_updates(updates: Mapping[str, Update], base_name: str | None, folder: Path) -> None:
    """Write updates as a plain LoRA adapter with alpha = rank in every layer, so that its scale is 1.

    Args:
        updates: By name of the adapted linear layer; ranks may differ.
        base_name: Name of the base, for PEFT.
        folder: Folder to write to, made if missing.
    """
    ranks = {name: update.rank for name, update in updates.items()}
    (rank, _), *_ = Counter(ranks.values()).most_common(1)
    others = {name: other for name, other in ranks.items() if other != rank}
    LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_name,
        r=rank,
        lora_alpha=rank,
        # Whole names, since an expert may adapt q_proj in some blocks only.
        target_modules=list(updates),
        rank_pattern=others,
        alpha_pattern=dict(others),
        inference_mode=True,
    ).save_pretrained(str(folder))
    sort_targets(folder)
    tensors = {}
    for name, update in updates.items():
        tensors[f"{PEFT_PREFIX}{name}.lora_A.weight"] = update.down
        tensors[f"{PEFT_PREFIX}{name}.lora_B.weight"] = update.up
    save_tensors(folder / WEIGHTS_FILE, tensors)
