"""Tests of serving; a package, so that they share the fixtures' helpers."""
