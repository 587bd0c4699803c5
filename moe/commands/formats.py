"""Commands that bring mixtures in from other projects, and out to them."""

from pathlib import Path
from typing import Annotated

import tyro

from ...experts.errors import FinLoraError
from .answering import Quantization


def import_mixture(
    source: Annotated[Path, tyro.conf.arg(metavar="FOLDER")],
    /,
    out: Path,
    base: str | None = None,
    quantization: Quantization = "nf4",
    experts: tuple[Path, ...] = (),
) -> None:
    """Turn an X-LoRA model of PEFT or of the xlora package into a mixture.

    The experts stay where they are; the mixture refers to them.

    Args:
        source: Folder that PEFT or the xlora package saved.
        out: Folder of the mixture to write.
        base: The model it was trained on: a local folder or a hub id. By default the one that the folder
            names.
        quantization: How the mixture stores the base.
        experts: Folders of the experts in the order of the router's outputs, if they moved since the folder
            was saved.
    """
    from ...router import from_peft_xlora, from_xlora_package

    if (source / "xlora_config.json").is_file():
        load = from_xlora_package
    elif (source / "adapter_config.json").is_file():
        load = from_peft_xlora
    else:
        raise FinLoraError(
            f"{source} has neither adapter_config.json (PEFT) nor xlora_config.json (xlora package); give "
            "the folder that one of them saved."
        )
    adapters = {folder.name: folder for folder in experts} or None
    mixture = load(source, base=base, quantization=quantization, adapters=adapters)
    mixture.save_pretrained(out)
    print(f"mixture of {mixture.bank.expert_count} experts written to {out}")


def export_mixture(mixture: Annotated[Path, tyro.conf.arg(metavar="MIXTURE")], /, out: Path) -> None:
    """Turn a mixture into an X-LoRA folder that PEFT loads.

    Args:
        mixture: Folder of the mixture.
        out: Folder to write, with copies of the experts in it; it must not exist.
    """
    from ...router import load_mixture
    from ..peft_xlora import export_peft_xlora

    print(f"X-LoRA for PEFT written to {export_peft_xlora(load_mixture(mixture), out)}")
