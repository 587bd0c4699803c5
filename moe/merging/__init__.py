"""Merging: many experts become one ordinary adapter, by rules that need no training. Start in `merge.py`."""
