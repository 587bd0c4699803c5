"""Who decides the scalings, and how routers learn."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .loading import ROUTERS, from_peft_xlora, from_xlora_package, load_mixture
    from .xlora import XLoRARouter, XLoRASettings

__all__ = [
    "ROUTERS",
    "XLoRARouter",
    "XLoRASettings",
    "from_peft_xlora",
    "from_xlora_package",
    "load_mixture",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the command line reads the settings here without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = ".xlora" if name.startswith("XLoRA") else ".loading"
    return getattr(import_module(home, __name__), name)
