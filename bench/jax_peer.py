"""The toy step in JAX: one model's step, vmapped over models, in a loop over steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from grokfast.bucket import Bucket

Carry = tuple[Any, ...]  # params, m, v, step, loss, t_train, t_val


def make(bucket: Bucket, device: Any) -> tuple[Carry, Callable[[Carry, int], Carry]]:
    """The initial carry of all models and a function that trains them so many steps."""
    jax.config.update("jax_default_matmul_precision", "highest")  # else TF32 on GPUs
    put = lambda x: jax.device_put(jnp.asarray(x.numpy()), device)  # noqa: E731
    one_hot = lambda x: jax.nn.one_hot(x, bucket.vocabulary).sum(1)  # noqa: E731
    x, x_val = one_hot(put(bucket.x_train[0].int())), one_hot(put(bucket.x_val[0].int()))
    y, y_val = put(bucket.y_train[0].int()), put(bucket.y_val[0].int())
    targets = None if bucket.targets is None else put(bucket.targets[0])
    need_train, need_val = bucket.need_train, bucket.need_val

    def forward(params: Any, x: Any) -> Any:
        embedding, w1, b1, w2, b2, w3, b3 = params
        h = jnp.tanh(x @ embedding @ w1.T + b1)
        return jnp.tanh(h @ w2.T + b2) @ w3.T + b3

    def correct(output: Any, y: Any) -> Any:
        if targets is None:
            return (output.argmax(1) == y).sum()
        distance = ((output[:, None] - targets) ** 2).sum(2)
        return (distance.argmin(1) == y).sum()

    def loss_of(params: Any) -> Any:
        output = forward(params, x)
        if targets is None:
            loss = -jax.nn.log_softmax(output)[jnp.arange(len(y)), y].mean()
        else:
            loss = ((output - targets[y]) ** 2).mean()
        return loss, correct(output, y)

    def one_model(lr: Any, decay: Any, carry: Carry) -> Carry:
        params, m, v, step, _, t_train, t_val = carry
        (loss, train), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        step = step + 1
        c1, c2 = 1 - 0.9**step, jnp.sqrt(1 - 0.999**step)
        m = [0.9 * a + 0.1 * g for a, g in zip(m, gradients, strict=True)]
        v = [0.999 * a + 0.001 * g * g for a, g in zip(v, gradients, strict=True)]
        params = [
            p * (1 - rate * wd) - rate / c1 * a / (jnp.sqrt(b) / c2 + 1e-8)
            for p, a, b, rate, wd in zip(params, m, v, lr, decay, strict=True)
        ]
        val = correct(forward(params, x_val), y_val)
        t_train = jnp.where((t_train < 0) & (train >= need_train), step, t_train)
        t_val = jnp.where((t_val < 0) & (val >= need_val), step, t_val)
        return params, m, v, step, loss, t_train, t_val

    lr = [put(h.float()) for h in bucket.lr]  # G of [M]
    decay = [put(h.float()) for h in bucket.weight_decay]
    models = jax.vmap(one_model)

    def run(carry: Carry, steps: Any) -> Carry:
        return jax.lax.fori_loop(0, steps, lambda _, c: models(lr, decay, c), carry)

    compiled = jax.jit(run, donate_argnums=0)
    index = bucket.init_index.numpy()
    params = [
        put(stack)[index]
        for stack in (
            __import__("torch").stack([model[g] for model in bucket.init])
            for g in range(len(bucket.names))
        )
    ]
    count = len(index)
    zeros = lambda: [jnp.zeros_like(p) for p in params]  # noqa: E731
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
