"""Attention, as torch's scaled_dot_product_attention wherever that has the same meaning."""

import math
from typing import Any, Final

import torch
from torch.nn import functional

from server.lowering.dtypes import TORCH_DTYPES
from server.lowering.table import Table

OPERATORS: Final = Table()


@OPERATORS.add("Attention", versions=(23, 25), many=True, why="onnx2torch has none")
def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None,
    past_key: torch.Tensor | None = None, past_value: torch.Tensor | None = None, lengths: torch.Tensor | None = None,
    *, is_causal: int = 0, kv_num_heads: int | None = None, q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0, scale: float | None = None, softcap: float = 0.0,
    softmax_precision: int | None = None, left_window_size: int = -1, right_window_size: int = -1, count: int,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """Attention.

    Args:
        query: [batch, heads, time, size], or [batch, time, heads * size].
        key: The same.
        value: The same; its size may differ.
        mask: Added to the scores, or, if bool, True where a key takes part; it broadcasts.
        past_key: [batch, heads, time, size] of steps before.
        past_value: The same.
        lengths: [batch], how many keys of each row count.
        is_causal: Whether a query only sees keys up to its own step.
        kv_num_heads: Of keys and values, where the heads are in the last axis.
        q_num_heads: Of queries; a multiple of the others.
        qk_matmul_output_mode: What the fourth output is.
        scale: Of the scores; one over the root of the size if it is left out.
        softcap: Scores are bent to stay below it.
        softmax_precision: ONNX's number of the element type of the softmax.
        left_window_size: How many steps back a query sees; -1 for all.
        right_window_size: How many steps ahead.
        count: Of outputs: result, keys, values, scores.
    """
    flat = query.ndim == 3
    if flat:
        query, key = _split(query, q_num_heads), _split(key, kv_num_heads)
        value = _split(value, kv_num_heads)
    before = 0
    if past_key is not None and past_value is not None:
        before = past_key.shape[2]
        key, value = torch.cat([past_key, key], 2), torch.cat([past_value, value], 2)
    plain = count < 4 and softcap == 0.0 and _is_default(softmax_precision, query.dtype)
    only_causal = mask is None and lengths is None and past_key is None and left_window_size < 0 > right_window_size
    if plain and only_causal:
        result, scores = _fused(query, key, value, None, is_causal=bool(is_causal), scale=scale), None
    else:
        offset = before if lengths is None else lengths.reshape(-1, 1, 1, 1) - query.shape[2]
        seen = _seen(query, key, offset, lengths, is_causal, left_window_size, right_window_size)
        bias = _bias(mask, seen, key.shape[2], query.dtype)
        if plain:
            result, scores = _fused(query, key, value, bias, is_causal=False, scale=scale), None
        else:
            result, scores = _explicit(
                query, key, value, bias, scale, softcap, softmax_precision, qk_matmul_output_mode
            )
    if flat:
        result = result.transpose(1, 2).flatten(2)
    return (result, key, value, scores)[:count]  # type: ignore[return-value] # scores are there if they are asked for


def _split(data: torch.Tensor, heads: int | None) -> torch.Tensor:
    batch, time, size = data.shape
    if heads is None:
        msg = "Attention on three axes without a number of heads"
        raise ValueError(msg)
    return data.reshape(batch, time, heads, size // heads).transpose(1, 2)


def _is_default(precision: int | None, dtype: torch.dtype) -> bool:
    return precision is None or TORCH_DTYPES[precision] in {dtype, torch.float32}


def _fused(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None,
    *, is_causal: bool, scale: float | None,
) -> torch.Tensor:  # fmt: skip
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=bias, is_causal=is_causal, scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip


def _seen(
    query: torch.Tensor, key: torch.Tensor, offset: Any, lengths: torch.Tensor | None, is_causal: int, left: int,
    right: int,
) -> torch.Tensor | None:  # fmt: skip
    """Which keys each query may see, by their places alone; None for all."""
    steps = torch.arange(query.shape[2], device=query.device).unsqueeze(1) + offset
    places = torch.arange(key.shape[2], device=query.device)
    conditions: list[torch.Tensor] = []
    if is_causal:
        conditions.append(places <= steps)
    if left >= 0:
        conditions.append(places >= steps - left)
    if right >= 0:
        conditions.append(places <= steps + right)
    if lengths is not None:
        conditions.append(places < lengths.reshape(-1, 1, 1, 1))
    if not conditions:
        return None
    seen = conditions[0]
    for condition in conditions[1:]:
        seen = seen & condition
    return seen


def _bias(mask: torch.Tensor | None, seen: torch.Tensor | None, keys: int, dtype: torch.dtype) -> torch.Tensor | None:
    """The mask and the places together, as scaled_dot_product_attention takes them."""
    if mask is None:
        return seen
    if mask.ndim == 1:
        mask = mask.unsqueeze(0)
    missing = keys - mask.shape[-1]
    if not (isinstance(missing, int) and missing == 0):
        fill = False if mask.dtype is torch.bool else -math.inf
        mask = torch.cat([mask, mask.new_full((*mask.shape[:-1], missing), fill)], -1)
    if seen is None:
        return mask
    if mask.dtype is torch.bool:
        return mask & seen
    return torch.where(seen, mask, torch.full((), -math.inf, dtype=dtype, device=mask.device))


def _explicit(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None, scale: float | None,
    softcap: float, precision: int | None, mode: int,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Attention in steps, where the scores are wanted or bent."""
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    root = math.sqrt(1 / math.sqrt(query.shape[3]) if scale is None else scale)
    scores = torch.matmul(query * root, key.transpose(2, 3) * root)
    wanted = scores
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
        wanted = scores if mode == 1 else wanted
    if bias is not None:
        if bias.dtype is torch.bool:
            bias = torch.where(bias, 0.0, -math.inf).to(scores.dtype)
        scores = scores + bias
    wanted = scores if mode == 2 else wanted
    exact = scores if precision is None else scores.to(TORCH_DTYPES[precision])
    shares = torch.softmax(exact, -1)
    if bias is not None:
        shares = torch.where(torch.isneginf(bias.amax(-1, keepdim=True)), torch.zeros_like(shares), shares)
    wanted = shares if mode == 3 else wanted
    return torch.matmul(shares.to(query.dtype), value), wanted.to(query.dtype)
