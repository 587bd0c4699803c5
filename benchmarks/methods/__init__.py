"""What is compared: one file a family of methods, one entry a method."""

from ..layout import EXPERT_PREFIX
from .method import XLORA, Method, expert_part, router_part
from .routers import LAST_TRUNK, ROUTERS
from .table import FURTHER, make_methods

__all__ = [
    "EXPERT_PREFIX",
    "FURTHER",
    "LAST_TRUNK",
    "ROUTERS",
    "XLORA",
    "Method",
    "expert_part",
    "make_methods",
    "router_part",
]
