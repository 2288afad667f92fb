"""The contract once more, in plain torch: autograd, torch.optim.AdamW, one cell at a time.

Slow and obvious, in any dtype; knows nothing of the kernels' layout, chunks or fusion.
"""

import copy
import math

import torch
import torch.nn.functional as F

ACTIVATIONS = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
    "square": torch.square,
}


def forward(job, tensors, x):
    act = ACTIVATIONS[job["activation"]]
    tensors = iter(tensors)
    if job["embedding"]:
        x = next(tensors)[x.long()].sum(dim=1)
        if job["activate_embedding"]:
            x = act(x)
    for layer in range(len(job["sizes"]) - 1):
        if layer > 0:
            x = act(x)
        x = F.linear(x, next(tensors), next(tensors) if job["bias"] else None)
    return x


def score(job, y, labels, targets):
    """Loss and number of correct predictions."""
    labels = labels.long()
    mse = job["loss"] == "mse"
    loss = F.mse_loss(y, targets[labels]) if mse else F.cross_entropy(y, labels)
    if job["predict"] == "nearest":
        guess = torch.cdist(y, targets).argmin(dim=1)
    else:
        guess = y.argmax(dim=1)
    return loss, int((guess == labels).sum())


def train(job):
    """Trains job["cells"] in place to job["until"], like grokfast.kernels.train."""
    for cell in job["cells"].tolist():
        train_cell(job, cell)


def train_cell(job, m):
    d = int(job["data_index"][m])
    x, labels = job["x_train"][d], job["y_train"][d]
    targets = None if job["targets"] is None else job["targets"][d]
    samples, batch = len(labels), job["batch_size"]
    batches = samples // batch

    tensors = [p[m].clone().requires_grad_() for p in job["params"]]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p], "lr": float(lr), "weight_decay": float(wd)}
            for p, lr, wd in zip(tensors, job["lr"][:, m], job["weight_decay"][:, m], strict=True)
        ],
        betas=(job["beta1"], job["beta2"]),
        eps=job["eps"],
    )
    i = int(job["step"][m])
    for p, first, second in zip(tensors, job["exp_avg"], job["exp_avg_sq"], strict=True):
        optimizer.state[p] = {
            "step": torch.tensor(float(i)),
            "exp_avg": first[m].clone(),
            "exp_avg_sq": second[m].clone(),
        }

    def done():
        finished = job["stop"] and job["t_train"][m] >= 0 and job["t_val"][m] >= 0
        return i >= job["until"] or job["diverged_at"][m] >= 0 or finished

    while not done():
        epoch, k = divmod(i, batches)
        rows = torch.arange(samples)
        if job["order"] is not None:
            shuffle = job["order"][job["order_index"][m], epoch - job["first_epoch"]].long()
            rows = shuffle[k * batch : (k + 1) * batch]
        loss, correct = score(job, forward(job, tensors, x[rows]), labels[rows], targets)
        if not math.isfinite(loss.item()):
            job["diverged_at"][m] = i + 1
            break
        if k == 0:
            job["epoch_correct"][m] = 0
            job["epoch_loss"][m] = 0.0
        job["epoch_correct"][m] += correct
        job["epoch_loss"][m] += loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        i += 1

        with torch.no_grad():
            due = job["eval_steps"] is None or i in job["eval_steps"].tolist()
            if k == batches - 1 and due:
                outputs = forward(job, tensors, job["x_val"][d])
                val_loss, val_correct = score(job, outputs, job["y_val"][d], targets)
                train_correct = int(job["epoch_correct"][m])
                if job["train_accuracy"] == "after":
                    _, train_correct = score(job, forward(job, tensors, x), labels, targets)
                for part, correct in (("train", train_correct), ("val", val_correct)):
                    best = job[f"best_{part}_correct"]
                    job[f"{part}_correct"][m], best[m] = correct, max(correct, int(best[m]))
                    if job[f"t_{part}"][m] < 0 and correct >= job[f"need_{part}"]:
                        job[f"t_{part}"][m] = i
                    crossed = (job[f"{part}_crossings"][m] < 0) & (
                        correct >= job[f"need_{part}_more"]
                    )
                    job[f"{part}_crossings"][m, crossed] = i
                for j, at in enumerate(job["curve_steps"].tolist()):
                    if at == i:
                        job["train_loss"][m, j] = job["epoch_loss"][m] / batches
                        job["val_loss"][m, j] = val_loss
                        job["train_acc"][m, j] = train_correct / samples
                        job["val_acc"][m, j] = val_correct / len(job["y_val"][d])

    job["step"][m] = i
    for p, parameter, first, second in zip(
        tensors, job["params"], job["exp_avg"], job["exp_avg_sq"], strict=True
    ):
        parameter[m] = p.detach()
        first[m] = optimizer.state[p]["exp_avg"]
        second[m] = optimizer.state[p]["exp_avg_sq"]


def clone(job, dtype=None, device=None):
    """A deep copy, real tensors cast to dtype; hyperparameters and records keep theirs."""
    real = ("params", "exp_avg", "exp_avg_sq", "x_train", "x_val", "targets")

    def convert(name, value):
        if isinstance(value, list):
            return [convert(name, v) for v in value]
        if not isinstance(value, torch.Tensor):
            return copy.deepcopy(value)
        cast = dtype if name in real and value.is_floating_point() else None
        return value.clone().to(device=device, dtype=cast or value.dtype)

    return {name: convert(name, value) for name, value in job.items()}


def assert_as_good(got, plain, exact):
    """Maximum error of `got` at most twice that of plain torch in the same precision.

    The floor is four units of the last place of the largest entry: plain torch may be exact.
    Losses are kept in float64, but come of float32.
    """
    floor = 4 * torch.finfo(torch.float32).eps * exact.abs().max()
    error = (got.cpu().double() - exact.double()).abs().max()
    allowed = 2 * (plain.double() - exact.double()).abs().max() + floor
    assert error <= allowed, f"error {error:.3g}, allowed {allowed:.3g}"
