"""Attention by request equals one product over everything with foreign keys masked."""

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from finlora.moe.serving.packed_attention import Segments, packed_attention

QUERIES = (1, 5, 1, 1, 4, 1)
KEYS = (9, 5, 30, 1, 11, 2)


class Layer(nn.Module):
    """An attention layer, as far as the cache is concerned."""

    layer_idx = 0


class _Store:
    """A cache of one layer."""

    def __init__(self, rows: int):
        self.keys, self.values = torch.randn(rows, 2, 8), torch.randn(rows, 2, 8)

    def store(self, keys, values, layer, write_index):
        self.keys.index_copy_(0, write_index[0], keys.transpose(0, 1))
        self.values.index_copy_(0, write_index[0], values.transpose(0, 1))
        return self.keys, self.values


def test_attention_by_request_equals_one_masked_product():
    torch.manual_seed(0)
    store = _Store(100)
    read = torch.randperm(100)[: sum(KEYS)]
    ends = torch.tensor(KEYS).cumsum(0).tolist()
    write = torch.cat([read[end - queries : end] for end, queries in zip(ends, QUERIES, strict=True)])
    tokens = sum(QUERIES)
    query, key, value = (
        torch.randn(1, 4, tokens, 8),
        torch.randn(1, 2, tokens, 8),
        torch.randn(1, 2, tokens, 8),
    )
    segments = Segments(QUERIES, KEYS, read)
    kwargs = {"segments": segments, "cache": store, "write_index": [write], "scaling": 0.3}
    result, _ = packed_attention(Layer(), query, key, value, None, **kwargs)
    mask = torch.zeros(tokens, len(read), dtype=torch.bool)
    row = 0
    for end, queries, keys in zip(ends, QUERIES, KEYS, strict=True):
        for i in range(queries):
            mask[row, end - keys : end - queries + i + 1] = True
            row += 1
    all_keys, all_values = (part[read].transpose(0, 1)[None] for part in (store.keys, store.values))
    expected = scaled_dot_product_attention(
        query, all_keys, all_values, attn_mask=mask, scale=0.3, enable_gqa=True
    )
    torch.testing.assert_close(result, expected.transpose(1, 2))


def test_numbers_that_are_not_finite_stay_with_their_request():
    store = _Store(40)
    store.keys[9:20] = torch.nan
    store.values[9:20] = torch.nan
    read = torch.arange(25)
    segments = Segments((1, 1, 1), (9, 11, 5), read)
    query, key = torch.randn(1, 4, 3, 8), torch.randn(1, 2, 3, 8)
    kwargs = {"segments": segments, "cache": store, "write_index": [torch.tensor([8, 19, 24])]}
    result, _ = packed_attention(Layer(), query, key, key, None, **kwargs)
    assert torch.isfinite(result[0, [0, 2]]).all()
    assert result[0, 1].isnan().all()
