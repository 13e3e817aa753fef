"""Multi-head attention with fewer heads, or a narrower embedding, than torch's own layer allows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.core.errors import SurgeryError


class NarrowAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` (Vaswani et al. 2017, 3.2.2) whose heads together need not be as wide as the embedding.

    Parameters have torch's names: `in_proj_weight` is (3 * heads * width of a head, embedding), or `q_proj_weight` and
    its kind (heads * width, their own input); `out_proj` is (embedding, heads * width). `narrow_attention` makes it.
    """

    scale: float

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As torch's, with its shapes."""
        del is_causal  # It is a hint that the mask is causal; the mask is there all the same.
        batched = query.ndim == 3
        if not batched:
            query, key, value = (each.unsqueeze(0 if self.batch_first else 1) for each in (query, key, value))
        if not self.batch_first:
            query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        q, k, v = (
            F.linear(each, weight, bias).reshape(*each.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)
            for each, weight, bias in zip((query, key, value), *_projections(self), strict=True)
        )
        mask = _mask(q, attn_mask, key_padding_mask)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) * self.scale
            weights = torch.softmax(scores if mask is None else scores + mask, -1)
            mixed = F.dropout(weights, dropout) @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout, scale=self.scale)
        out = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if not self.batch_first:
            out = out.transpose(0, 1)
        if not batched:
            out = out.squeeze(0 if self.batch_first else 1)
            weights = None if weights is None else weights.squeeze(0)
        return out, weights


def narrow_attention(layer: nn.MultiheadAttention) -> None:
    """Tell a layer whose parameters lost rows or columns how many heads it has left, and how wide they are.

    Raises SurgeryError where it adds keys and values of its own.
    """
    if layer.bias_k is not None or layer.bias_v is not None or layer.add_zero_attn:
        raise SurgeryError("attention with keys and values of its own (add_bias_kv, add_zero_attn) is not pruned yet")
    if not isinstance(layer, NarrowAttention):
        layer.scale = layer.head_dim**-0.5
        layer.__class__ = NarrowAttention
    width = layer.out_proj.weight.shape[1]
    if layer.num_heads == 1:
        layer.head_dim = width
    else:
        layer.num_heads = width // layer.head_dim
    layer.embed_dim = layer.out_proj.weight.shape[0]
    if layer.in_proj_weight is not None:
        layer.kdim = layer.vdim = layer.in_proj_weight.shape[1]
    else:
        layer.kdim, layer.vdim = layer.k_proj_weight.shape[1], layer.v_proj_weight.shape[1]
    # So that no encoder layer hands its parameters to a kernel that thinks heads and embedding of one width.
    layer._qkv_same_embed_dim = False


def _projections(layer: NarrowAttention) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
    biases = (None,) * 3 if layer.in_proj_bias is None else layer.in_proj_bias.chunk(3)
    if layer.in_proj_weight is not None:
        return layer.in_proj_weight.chunk(3), biases
    return (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight), biases


def _mask(q: Tensor, attention: Tensor | None, padding: Tensor | None) -> Tensor | None:
    """What is added to scores (N, heads, T, S); minus infinity where a mask of booleans says True."""
    mask = None
    if attention is not None:
        mask = _added(attention, q)
        if mask.ndim == 3:
            mask = mask.reshape(q.shape[0], -1, *mask.shape[1:])
    if padding is not None:
        own = _added(padding, q).reshape(-1, 1, 1, padding.shape[-1])
        mask = own if mask is None else mask + own
    return mask


def _added(mask: Tensor, q: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=q.dtype).masked_fill_(mask, float("-inf"))
