"""Floating-point operations of BERT's matrix products, counted from its sizes."""

from __future__ import annotations

from bertkit.bert.architecture import Architecture

Product = tuple[int, int, int, int]
"""``(count, M, N, K)``: so many products of ``[M, K]`` and ``[K, N]``, at ``2·M·N·K`` each."""


def forward_products(sizes: Architecture, batch: int, length: int) -> list[Product]:
    """The matrix products of one forward pass.

    With ``T = batch · length`` tokens, hidden width ``H``, intermediate width ``I``, ``A`` heads
    of ``D = H / A``, and ``L`` layers, each layer has

    - queries, keys and values together: `[T, H] x [H, 3H]``,
    - scores and context: ``batch · A`` times ``[S, D] x [D, S]`` and ``[S, S] x [S, D]``,
    - attention's output: `[T, H] x [H, H]``,
    - feed-forward: `[T, H] x [H, I]`` and ``[T, I] x [I, H]``.

    The two logits a token are left out: ``4·T·H`` operations of some ``10¹²``.

    Args:
        sizes: The model's sizes.
        batch: Examples.
        length: Tokens of each, ``S``.

    Example:
        >>> sum(2 * c * m * n * k for c, m, n, k in forward_products(Architecture(), 8, 384)) / 1e9
        565.3...
    """
    tokens, hidden, wide = batch * length, sizes.hidden_size, sizes.intermediate_size
    heads, layers = sizes.num_attention_heads, sizes.num_hidden_layers
    size = hidden // heads
    return [
        (layers, tokens, 3 * hidden, hidden),
        (layers * batch * heads, length, length, size),
        (layers * batch * heads, length, size, length),
        (layers, tokens, hidden, hidden),
        (layers, tokens, wide, hidden),
        (layers, tokens, hidden, wide),
    ]


def step_flops(sizes: Architecture, batch: int, length: int) -> float:
    """Operations of one forward and backward pass: each product is needed three times.

    Backward, ``dX = dY·Wᵀ`` and ``dW = Xᵀ·dY`` each cost what ``Y = X·W`` did.
    """
    forward = sum(2 * c * m * n * k for c, m, n, k in forward_products(sizes, batch, length))
    return 3.0 * forward
