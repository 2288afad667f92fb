"""A driver of the tests: ``drive.py OUT ADDRESS CHANGES``, as a user's own script would be. With
the address ``none`` it trains on this machine, without Ray."""

import json
import sys
from dataclasses import replace

import held

import grokfast as gf
from grokfast.cli.boundary import guarded
from grokfast.cluster import run


def grid(**changes):
    options = {"lr": [1e-3, 3e-3, 1e-2], "weight_decay": [0.0, 1.0, 10.0], "width": 16}
    options |= {"steps": 400, "record.embeddings": 50, "record.weights": True} | changes
    experiment = replace(gf.preset("addition-classification").experiment, task=held.Held())
    return gf.Grid(experiment=experiment, name="held").grid(**options)


def train(out, address, changes):
    cells = grid(**json.loads(changes))
    if address == "none":
        gf.run(cells, out=out, device="cpu", threads=1)
    else:
        run(cells, out=out, address=address)


if __name__ == "__main__":
    sys.exit(guarded(lambda: train(*sys.argv[1:])))
