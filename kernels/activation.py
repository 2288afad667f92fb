"""Activations, elementwise: what is kept of act(x), what it is, and the gradient.

All three map 0 to 0 (see layout.py). One number is kept: y = act(x) where the derivative can be
read off it, x where it cannot and act(x) is cheap.
"""

import triton
import triton.language as tl


@triton.jit
def tanh(x):
    """tanh to about 2 ulp: Moshier's Cephes (tanhf.c, tanh.c), since tl has no tanh of its own.

    libdevice's is not available to the interpreter, and 1 - 2 / (exp(2x) + 1) alone loses all
    relative accuracy near zero.
    """
    z = x * x
    if x.dtype == tl.float64:
        p = (-9.64399179425052238628e-1 * z - 9.92877231001918586564e1) * z
        q = ((z + 1.12811678491632931402e2) * z + 2.23548839060100448583e3) * z
        small = x + x * z * (p - 1.61468768441708447952e3) / (q + 4.84406305325125486048e3)
    else:
        p = ((-5.70498872745e-3 * z + 2.06390887954e-2) * z - 5.37397155531e-2) * z
        small = x + x * z * ((p + 1.33314422036e-1) * z - 3.33332819422e-1)
    large = 1.0 - 2.0 / (tl.exp(2.0 * tl.abs(x)) + 1.0)
    large = tl.where(x < 0, -large, large)
    return tl.where(tl.abs(x) < 0.625, small, large)


@triton.jit
def keep(x, SPEC: tl.constexpr):
    """What is stored of act(x)."""
    if SPEC.activation == "tanh":
        kept = tanh(x)
    elif SPEC.activation == "relu":
        # Not maximum(x, 0): a NaN must reach the loss, where divergence is noticed.
        kept = tl.where(x < 0, 0.0, x)
    elif SPEC.activation == "leaky_relu":
        kept = tl.where(x < 0, 0.1 * x, x)
    else:
        tl.static_assert(SPEC.activation == "square")
        kept = x
    return kept


@triton.jit
def activated(kept, SPEC: tl.constexpr):
    """act(x)."""
    if SPEC.activation == "square":
        y = kept * kept
    else:
        tl.static_assert(
            SPEC.activation == "tanh"
            or SPEC.activation == "relu"
            or SPEC.activation == "leaky_relu"
        )
        y = kept
    return y


@triton.jit
def activation_gradient(dy, kept, SPEC: tl.constexpr):
    """dy * act'(x)."""
    if SPEC.activation == "tanh":
        dx = dy * (1.0 - kept * kept)
    elif SPEC.activation == "relu":
        dx = tl.where(kept > 0, dy, 0.0)
    elif SPEC.activation == "leaky_relu":
        dx = tl.where(kept > 0, dy, 0.1 * dy)
    else:
        tl.static_assert(SPEC.activation == "square")
        dx = dy * (2.0 * kept)
    return dx
