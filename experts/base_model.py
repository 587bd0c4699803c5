"""The base: a frozen causal language model, quantized by bitsandbytes or not, with its tokenizer.

A base is the embedded default, a local folder or a hub id. Only safetensors weights are read, and no code
that comes with a model is run.
"""

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from .errors import FinLoraError

EMBEDDED_BASE = "embedded"
"""Name of the base that comes with the package."""

Quantization = Literal["none", "int8", "nf4"]
QUANTIZATIONS: tuple[str, ...] = get_args(Quantization)

PADDING_TOKENS = ("<|finetune_right_pad_id|>", "<|endoftext|>", "<unk>")
"""Tokens that published tokenizers without a pad token leave free for padding, best first."""

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Base:
    """A loaded base."""

    model: PreTrainedModel
    """Frozen and in evaluation mode."""
    tokenizer: PreTrainedTokenizerBase
    """Fast tokenizer with a pad token, padding on the left."""
    name: str
    """As the user gave it: "embedded", a local folder or a hub id."""
    revision: str
    """Commit of a hub model, or a hash of the weights of a local one; equal revisions mean equal weights."""
    quantization: str
    """none, int8 or nf4."""


def load_base(
    name: str,
    quantization: str = "nf4",
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Base:
    """Load, quantize and freeze a base.

    Args:
        name: "embedded", a local folder with a Hugging Face model, or a hub id such as
            `meta-llama/Llama-3.1-8B`.
        quantization: `nf4` (4 bit with double quantization, Dettmers et al. 2023, arXiv:2305.14314), `int8`
            (Dettmers et al. 2022, arXiv:2208.07339) or `none`. The output layer is never quantized.
        device: Where to put it; "auto" spreads it over all GPUs. By default CUDA where there is one, for each
            process of a machine its own, else the CPU.
        dtype: Type of what is not quantized, and of the computation; by default bfloat16 on CUDA, float32 on
            the CPU.

    Raises:
        FinLoraError: If the quantization is unknown, or the model is missing, gated, not reachable, already
            quantized, not a decoder-only language model, or not stored as safetensors.
    """
    if quantization not in QUANTIZATIONS:
        raise FinLoraError(f"No quantization {quantization!r}; choose one of {', '.join(QUANTIZATIONS)}.")
    source = _source(name)
    device = str(device or _default_device())
    dtype = dtype or (torch.float32 if device == "cpu" else torch.bfloat16)
    load_config(name)
    tokenizer = load_tokenizer(name)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype,
            device_map=device if device == "auto" else {"": device},
            quantization_config=_quantization_config(quantization, dtype),
            use_safetensors=True,
        )
    except (OSError, ValueError) as error:
        raise FinLoraError(_explain(name, error)) from error
    _set_pad_token(model, tokenizer)
    _keep_weights_as_loaded(model)
    model.requires_grad_(False).eval()
    return Base(model, tokenizer, name, _revision(source, model), quantization)


def load_config(name: str) -> PretrainedConfig:
    """Load what describes a base's shape, without its weights.

    Raises:
        FinLoraError: As `load_base`.
    """
    try:
        config = AutoConfig.from_pretrained(_source(name))
    except (OSError, ValueError) as error:
        raise FinLoraError(_explain(name, error)) from error
    _check_decoder_only(name, config)
    return config


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a base's tokenizer, without its weights.

    Raises:
        FinLoraError: As `load_base`.
    """
    try:
        return AutoTokenizer.from_pretrained(_source(name), padding_side="left")
    except (OSError, ValueError) as error:
        raise FinLoraError(_explain(name, error)) from error


def linear_layer_names(model: torch.nn.Module) -> list[str]:
    """Return the last names of all linear layers that an expert can adapt, without the output layer."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    names = {
        name.rpartition(".")[2]: None
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    return list(names)


def _default_device() -> str:
    if not torch.cuda.is_available():
        return "cpu"
    # torchrun and accelerate launch number the processes of a machine.
    number = os.environ.get("LOCAL_RANK")
    return "cuda" if number is None else f"cuda:{number}"


def _source(name: str) -> str:
    if name == EMBEDDED_BASE:
        folder = Path(__file__).parent / "embedded_base"
        if not (folder / "model.safetensors").is_file():
            raise FinLoraError(
                "This copy of FinLoRA lacks the weights of its embedded base; install it again."
            )
        return str(folder)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
            raise FinLoraError(f"{name} is a LoRA adapter, not a base; name the model it was trained on.")
        if not (folder / "config.json").is_file():
            raise FinLoraError(f"The folder {name} has no config.json, so it is not a Hugging Face model.")
        return str(folder)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise FinLoraError(
            f"No base {name!r}: give {EMBEDDED_BASE!r}, an existing folder, or a hub id of the form "
            "owner/model."
        )
    return name


def _quantization_config(quantization: str, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if quantization == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    if quantization == "int8":
        # It warns at every multiplication that float32 inputs are rounded, which is what int8 means.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    return None


def _check_decoder_only(name: str, config: PretrainedConfig) -> None:
    architectures = config.architectures or []
    known = [entry for entry in architectures if entry.endswith(("ForCausalLM", "LMHeadModel"))]
    if config.is_encoder_decoder or (architectures and not known):
        kind = ", ".join(architectures) or config.model_type
        raise FinLoraError(
            f"The base {name} is a {kind}; only decoder-only language models (…ForCausalLM) can be one."
        )
    if getattr(config, "quantization_config", None) is not None:
        raise FinLoraError(
            f"The base {name} is stored quantized; give the original model, FinLoRA quantizes it."
        )


def _explain(name: str, error: Exception) -> str:
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)

    def caused_by(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    if caused_by(GatedRepoError):
        return (
            f"The base {name} is gated: accept its licence on https://huggingface.co/{name}, run `hf auth "
            "login` "
            "(or set HF_TOKEN), and try again."
        )
    if caused_by(RepositoryNotFoundError, HFValidationError):
        return (
            f"There is no model {name} on the hub, or it is private; check the name, or run `hf auth login`."
        )
    if caused_by(OfflineModeIsEnabled, LocalEntryNotFoundError, ConnectionError):
        return (
            f"The base {name} is not in the local cache and the hub cannot be reached; connect to the "
            "network, or "
            f"give a local folder or {EMBEDDED_BASE!r}."
        )
    if caused_by(HfHubHTTPError):
        return f"The hub refused the base {name}: {_first_line(error)}"
    return f"The base {name} cannot be loaded: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _set_pad_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.pad_token_id is None:
        vocabulary = tokenizer.get_vocab()
        free = [token for token in PADDING_TOKENS if token in vocabulary]
        tokenizer.pad_token = free[0] if free else tokenizer.eos_token
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    if model.generation_config is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id


def _keep_weights_as_loaded(model: PreTrainedModel) -> None:
    """Switch off the CPU kernel that repacks 4-bit weights in place at the first answer.

    It rounds to bfloat16, so results would differ between processors, and its result carries no gradient, so
    training after answering in one process would silently learn nothing (bitsandbytes 0.50, processors with
    AVX512-BF16).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # pyright: ignore[reportArgumentType]


def _revision(source: str, model: PreTrainedModel) -> str:
    folder = Path(source)
    if not folder.is_dir():
        return str(getattr(model.config, "_commit_hash", None) or "unknown")
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        _hash_weights(file, digest)
    return digest.hexdigest()[:16]


def _hash_weights(file: Path, digest: Any) -> None:
    size = file.stat().st_size
    digest.update(f"{file.name} {size}\n".encode())
    # Files of many gigabytes are sampled: a fine-tuned copy differs nearly everywhere, and loading must stay
    # quick.
    step = max(MEBIBYTE, size // 256)
    with file.open("rb") as stream:
        for offset in range(0, size, step):
            stream.seek(offset)
            digest.update(stream.read(MEBIBYTE))
