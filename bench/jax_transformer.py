"""The reproduction's transformer in JAX, on all positions: one model's step, vmapped over models,
in a loop over steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import torch

from grokfast.bucket import Bucket

Carry = tuple[Any, ...]  # params, m, v, step, loss, t_train, t_val


def make(bucket: Bucket, device: Any) -> tuple[Carry, Callable[[Carry, int], Carry]]:
    """The initial carry of all models and a function that trains them so many steps.

    Batches of a fixed order, all of them whole: shapes must not change.
    """
    jax.config.update("jax_default_matmul_precision", "highest")
    put = lambda x: jax.device_put(jnp.asarray(x.numpy()), device)  # noqa: E731
    model, o = bucket.cell.model, bucket.cell.optimizer
    size, count = bucket.batch_size, bucket.num_cells
    per_epoch = bucket.num_train // size
    x, x_val = put(bucket.x_train[0].int()), put(bucket.x_val[0].int())
    y, y_val = put(bucket.y_train[0].int()), put(bucket.y_val[0].int())
    vocabulary, length = bucket.vocabulary, bucket.x_train.shape[2]
    later = jnp.triu(jnp.ones((length, length), bool), 1)
    warmup = float(bucket.warmup[0])

    def norm(h: Any, p: Any, name: str) -> Any:
        mean = h.mean(-1, keepdims=True)
        variance = ((h - mean) ** 2).mean(-1, keepdims=True)
        scaled = (h - mean) * jax.lax.rsqrt(variance + 1e-5)
        return scaled * p[f"{name}.weight"] + p[f"{name}.bias"]

    def linear(h: Any, p: Any, name: str) -> Any:
        return h @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def attention(h: Any, p: Any, name: str) -> Any:
        qkv = h @ p[f"{name}.in_proj_weight"].T + p[f"{name}.in_proj_bias"]
        split = qkv.reshape(*h.shape[:2], 3, model.heads, -1)
        q, k, v = (split[:, :, i] for i in range(3))  # [B, K, heads, width of a head]
        scores = jnp.einsum("bihd,bjhd->bhij", q, k) / q.shape[-1] ** 0.5
        weights = jax.nn.softmax(jnp.where(later, -jnp.inf, scores), -1)
        both = jnp.einsum("bhij,bjhd->bihd", weights, v).reshape(h.shape)
        return linear(both, p, f"{name}.out_proj")

    def forward(p: Any, x: Any) -> Any:
        table = p["embedding.weight"]
        h = table[x] + table[vocabulary:]
        for i in range(model.depth):
            name = f"layers.{i}"
            h = norm(h + attention(h, p, f"{name}.self_attn"), p, f"{name}.norm1")
            fed = linear(jax.nn.relu(linear(h, p, f"{name}.linear1")), p, f"{name}.linear2")
            h = norm(h + fed, p, f"{name}.norm2")
        return h[:, -1] @ table[:vocabulary].T

    def correct(output: Any, y: Any) -> Any:
        return (output.argmax(1) == y).sum()

    def loss_of(p: Any, x: Any, y: Any) -> Any:
        output = forward(p, x)
        return -jax.nn.log_softmax(output)[jnp.arange(len(y)), y].mean()

    def one_model(carry: Carry) -> Carry:
        p, m, v, step, so_far, t_train, t_val = carry
        begin = step % per_epoch * size
        own = [jax.lax.dynamic_slice_in_dim(part, begin, size) for part in (x, y)]
        loss, g = jax.value_and_grad(loss_of)(p, *own)
        loss = jnp.where(begin == 0, 0.0, so_far) + loss
        rate = o.lr * (jnp.minimum(step / warmup, 1) if warmup else 1)
        step = step + 1
        c1, c2 = 1 - o.beta1**step, jnp.sqrt(1 - o.beta2**step)
        m = jax.tree.map(lambda a, b: o.beta1 * a + (1 - o.beta1) * b, m, g)
        v = jax.tree.map(lambda a, b: o.beta2 * a + (1 - o.beta2) * b * b, v, g)
        p = jax.tree.map(
            lambda w, a, b: (
                w * (1 - rate * o.weight_decay) - rate / c1 * a / (jnp.sqrt(b) / c2 + o.eps)
            ),
            p,
            m,
            v,
        )
        return p, m, v, step, loss, t_train, t_val

    def judged(carry: Carry) -> Carry:
        p, m, v, step, loss, t_train, t_val = carry
        train, val = correct(forward(p, x), y), correct(forward(p, x_val), y_val)
        t_train = jnp.where((t_train < 0) & (train >= bucket.need_train), step, t_train)
        t_val = jnp.where((t_val < 0) & (val >= bucket.need_val), step, t_val)
        return p, m, v, step, loss, t_train, t_val

    every = bucket.cell.evaluation.every

    def body(_: Any, carry: Carry) -> Carry:
        carry = jax.vmap(one_model)(carry)
        if every == 1:
            return jax.vmap(judged)(carry)
        due = carry[3][0] % every == 0
        return jax.lax.cond(due, jax.vmap(judged), lambda c: c, carry)

    def run(carry: Carry, steps: Any) -> Carry:
        return jax.lax.fori_loop(0, steps, body, carry)

    compiled = jax.jit(run, donate_argnums=0)
    index = bucket.init_index
    params = {
        name: put(torch.stack([own[g] for own in bucket.init])[index])
        for g, name in enumerate(bucket.names)
    }
    zeros = lambda: jax.tree.map(jnp.zeros_like, params)  # noqa: E731
    never = lambda: jnp.full(count, -1, jnp.int32)  # noqa: E731
    carry = (
        params,
        zeros(),
        zeros(),
        jnp.zeros(count, jnp.int32),
        jnp.zeros(count),
        never(),
        never(),
    )

    def train(carry: Carry, steps: int) -> Carry:
        return jax.block_until_ready(compiled(carry, steps))

    return jax.device_put(carry, device), train
