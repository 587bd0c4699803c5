"""Tests of the registry of experts and mixtures."""
