"""Applying many experts at once: the bank, the mixture model and its formats."""
