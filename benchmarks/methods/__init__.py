"""What is compared: one file a family of methods, one entry a method."""

from .method import XLORA, Method
from .routers import LAST_TRUNK, ROUTERS
from .table import FURTHER, make_methods

__all__ = [
    "FURTHER",
    "LAST_TRUNK",
    "ROUTERS",
    "XLORA",
    "Method",
    "make_methods",
]
