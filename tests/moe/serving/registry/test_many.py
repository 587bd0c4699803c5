"""Thousands of experts are opened and looked up without reading one of them."""

import pytest

from finlora.experts.errors import FinLoraError
from finlora.moe.serving.near_names import near_names
from finlora.moe.serving.registry import ExpertRegistry
from finlora.moe.serving.requests import UnknownModelError


def test_nothing_but_the_index_is_read(tmp_path, small_base, written):
    """All files of the experts are replaced by rubbish before the registry is opened."""
    sources = list(written.values())
    with ExpertRegistry(tmp_path / "registry", small_base) as registry:
        keys = registry.bulk_add({f"expert-{i:04}": sources[i % 8] for i in range(1000)})
        shapes = [registry.shape(key) for key in keys[:8]]
    for file in (tmp_path / "registry" / "contents").glob("*/*"):
        file.write_bytes(b"rubbish")
    with ExpertRegistry(tmp_path / "registry", small_base) as registry:
        assert len(registry.names()) == 1000
        assert registry.resolve("expert-0999") == ("expert-0999", 1)
        assert [registry.shape(key) for key in keys[:8]] == shapes
        with pytest.raises(UnknownModelError, match="near names are expert-0"):
            registry.resolve("expert-o0001")
        with pytest.raises(FinLoraError, match="expert-0000@1 was damaged since it was added"):
            registry.matrices(keys[0])


def test_near_names_are_the_nearest():
    names = [f"expert-{i:05}" for i in range(10_000)] + ["xbrl_tags", "xbrl_value", "finer"]
    assert near_names("xbrl_tag", names) == ["xbrl_tags", "xbrl_value"]
    assert near_names("Finer", names)[0] == "finer"
    assert near_names("expert-0123", names)[0] in (
        "expert-00123",
        "expert-01123",
        "expert-01023",
        "expert-01233",
    )
    assert near_names("qqq", names) == []
    assert near_names("../" * 1000, names) == []
