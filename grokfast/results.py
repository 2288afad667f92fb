"""Results: what a run has found, cell by cell; files of them are as :mod:`grokfast.layout` says."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grokfast import layout
from grokfast.cells import ALWAYS, Cells
from grokfast.errors import Damaged, UsageError, counted
from grokfast.fields import scalar_fields, short_name, value_text
from grokfast.grid import Grid
from grokfast.layout import COORDINATES, SCHEMA, SCHEMA_VERSION
from grokfast.outcomes import (
    ACCURACIES,
    CROSSINGS,
    DIVERGED,
    OK,
    PENDING,
    PROGRESS,
    RUNNING,
    STATUS,
    crossing_name,
)
from grokfast.phases import classify, late_medians
from grokfast.plausible import doubts
from grokfast.retyping import again
from grokfast.storage.files import user_path, write_whole
from grokfast.storage.guarded import Reader

if TYPE_CHECKING:
    import pandas
    import torch
    import xarray

    from grokfast.aggregate import Aggregate

__all__ = [
    "ALWAYS",
    "DIVERGED",
    "INTERNAL",
    "OK",
    "PENDING",
    "RUNNING",
    "SCHEMA",
    "SCHEMA_VERSION",
    "STATUS",
    "Results",
    "hyperparameter_columns",
    "listed_digests",
    "load",
]

#: Kept in the file so that a run can go on; no measurement.
INTERNAL = tuple(x.in_file for x in PROGRESS if x.internal)


@dataclass(eq=False)
class Results(Cells):
    """Outcomes of the cells of a grid (or of a shard of it), in memory.

    Attributes:
        grid, variables, provenance: see :class:`grokfast.cells.Cells`.
        weights: one dict per bucket: ``run`` (flat cell indices) and each parameter by its
            ``nn.Module`` name, ``[cells, ...]``; empty where not recorded.
        complete: whether every cell of this file is done.
    """

    grid: Grid
    variables: dict[str, tuple[tuple[str, ...], NDArray[Any]]]
    weights: list[dict[str, NDArray[Any]]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    complete: bool = False

    def __repr__(self) -> str:
        state = "complete" if self.complete else "incomplete"
        cells = counted(len(self), "cell")
        return f"<Results of {self.grid.name}: {cells}, {state}, {self.counts()}>"

    def _repr_html_(self) -> str:
        """For notebooks: cells by phase, and the axes."""
        state = "complete" if self.complete else "incomplete"
        title = f"<b>{escape(self.grid.name)}</b>: {counted(len(self), 'cell')}, {state}"
        axes = {name: _ends(values) for name, values in self.axes.items()}
        tables = [_html_table(rows) for rows in (self.counts(), axes) if rows]
        return "\n".join([f"<div>{title}</div>", *tables])

    def phases(self, budget: int | None = None) -> NDArray[np.int8]:
        """Phase code of each cell, int8 ``[run]``: index into ``rule.phases``, -1 unknown.

        Args:
            budget: read the diagram as of this many steps, at most the largest budget of a cell.

        Raises:
            UsageError: a budget beyond that, or one that the rule cannot go back to.
        """
        cells = [self.grid.cells[run] for run in self["run"].tolist()]
        known = {name: self[name] for name in ACCURACIES if name in self}
        windows = [cell.phase.window for cell in cells]
        if any(windows) and "train_acc" in self:
            ends = np.minimum(self["steps_done"], np.inf if budget is None else budget)
            known["late_train_acc"] = late_medians(
                self["step"], self["train_acc"], self["t_train"], ends, windows
            )
        return classify(
            self["t_train"],
            self["t_val"],
            [cell.phase for cell in cells],
            finished=self.finished(budget),
            steps_done=self["steps_done"],
            budget=budget,
            cells=cells,
            **known,
        )

    def moments(self, name: str, budget: int | None = None) -> NDArray[np.float64]:
        if name == "delay":
            t_train, t_val = self.moments("t_train", budget), self.moments("t_val", budget)
            neither = np.isinf(t_train) & np.isinf(t_val)
            return np.where(neither, np.inf, t_val - np.where(neither, 0.0, t_train))
        known = self.finished(budget)
        if name in (crossings := self.crossings):
            steps = crossings[name].astype(float)
            known &= self._looked_at(name, budget)
        else:
            steps = self[name].astype(float)
        reached = (steps >= 0) & (steps <= (np.inf if budget is None else budget))
        return np.where(reached, steps, np.where(known, np.inf, np.nan))

    @property
    def crossings(self) -> dict[str, NDArray[np.int64]]:
        """First steps over the further thresholds, ``t_train_0.5``, ``t_val_0.5``, ... -> int64
        ``[run]``: -1 for never, or where a cell has no such threshold."""
        if "threshold" not in self:
            return {}
        return {
            crossing_name(name.removesuffix("_crossings"), threshold): self[name][:, k]
            for k, threshold in enumerate(self["threshold"].tolist())
            for name in CROSSINGS
        }

    def _looked_at(self, name: str, budget: int | None) -> NDArray[np.bool_]:
        """Cells in which a crossing that did not happen was looked for to the end, ``[run]``: not
        those without this threshold, nor those that had stopped by the phase rule's own."""
        cells = [self.grid.cells[run] for run in self["run"].tolist()]
        part = name.split("_")[1]
        own = [{crossing_name(part, t) for t in cell.evaluation.thresholds} for cell in cells]
        ends = np.minimum([cell.steps for cell in cells], np.inf if budget is None else budget)
        to_the_end = (self["steps_done"] >= ends) | (self["status"] == DIVERGED)
        return to_the_end & np.array([name in names for names in own], bool)

    def finished(self, budget: int | None = None) -> NDArray[np.bool_]:
        finished = np.isin(self["status"], (OK, DIVERGED))
        if budget is None:
            return finished
        most = max(self.grid.budgets)
        if not 1 <= budget <= most:
            raise UsageError(
                f"budget is {budget:,}, but this run trained for {counted(most, 'step')} at most",
                hint=f"give 1 to {most:,}; gf.run with more steps raises a budget",
            )
        return finished | (self["steps_done"] >= budget)

    def aggregate(
        self,
        over: str | Sequence[str],
        *,
        budget: int | None = None,
        quantiles: tuple[float, float] = (0.25, 0.75),
    ) -> Aggregate:
        """Replicates put together: see :func:`grokfast.aggregate.aggregate`."""
        from grokfast.aggregate import aggregate

        return aggregate(self, over, budget=budget, quantiles=quantiles)

    def where(self, **values: Any) -> Results:
        """The cells of a slice of the grid: the named axes have the one value nearest to
        these: ``results.where(model_seed=0)``. Names and values are as for :meth:`find`.

        Raises:
            UsageError: no such axis or value, or no cell that has it.
        """
        from grokfast.views import where

        return where(self, **values)

    def reread(self, rule: str | None = None, **fields: Any) -> Results:
        """The same cells with phases read anew, without training: ``results.reread(gap=500)``, or
        by another rule, ``results.reread("collapse", kept=0.8)``.

        T_train and T_val were counted while training, so a new threshold must be among
        ``evaluation.thresholds`` of the run; cells that stopped before they were at it are not
        finished any more.

        Args:
            rule: name of a registered rule; by default that of the run.
            fields: of the rule; the others stay.

        Raises:
            UsageError: no such rule or field, one that differs from cell to cell, a threshold that
                nobody looked at, or a rule that looks at what was not recorded.
        """
        from grokfast.views import reread

        return reread(self, rule, **fields)

    def data_digests(self) -> dict[str, str]:
        """Identity of each data set of the run's cells -> its SHA-256; empty where not known."""
        known = self.provenance.get("data_sha256", [])
        digests = json.loads(known) if isinstance(known, str) else known
        cells = (self.grid.cells[run] for run in self["run"].tolist())
        identities = sorted({cell.data_identity() for cell in cells})
        same = isinstance(digests, list) and len(digests) == len(identities)
        return dict(zip(identities, digests, strict=True)) if same else {}

    def aligned(self, grid: Grid) -> Results:
        """These results with the grid's own values where the two are the same numbers (see
        :meth:`grokfast.Grid.aligned`)."""
        own = self.grid.aligned(grid)
        if own is self.grid:
            return self
        columns = hyperparameter_columns(own, self["run"].tolist())
        values = {name: (("run",), column) for name, column in columns.items()}
        return replace(self, grid=own, variables=self.variables | values)

    def module(self, **values: Any) -> torch.nn.Module:
        """The trained model of one cell as an ``nn.Module``, in evaluation mode.

        Args:
            values: axis values that name the cell, as for :meth:`find`.

        Raises:
            UsageError: the run did not record weights, or no such cell.
        """
        import torch

        from grokfast.models.loading import load

        run = int(self["run"][self.find(**values)])
        for bucket in self.weights:
            at = np.flatnonzero(bucket["run"] == run)
            if len(at):
                break
        else:
            raise UsageError(
                "this run kept no weights",
                hint=again(self.grid, **{"record.weights": True}),
            )
        tensors = {k: torch.tensor(v[at[0]]) for k, v in bucket.items() if k != "run"}
        cell = self.grid.cells[run]
        with torch.random.fork_rng(devices=[]):  # initial values are drawn, and replaced
            module = cell.model.build(cell.model.shape_of(tensors))
        load(module.to(getattr(torch, cell.dtype)), tensors)
        return module.eval()

    def to_xarray(self) -> xarray.Dataset:
        """An ``xarray.Dataset`` with dimensions ``run``, ``step``, ... and hyperparameters as
        coordinates of ``run``. Needs the extra ``grokfast[xarray]``."""
        import xarray

        coordinates = {*COORDINATES, *self.hyperparameters}
        data = {k: v for k, v in self.variables.items() if k not in coordinates}
        coords = {k: v for k, v in self.variables.items() if k in coordinates}
        return xarray.Dataset(data, coords, attrs={"title": self.grid.name})

    def columns(self) -> dict[str, NDArray[Any]]:
        """Column name -> one value a cell: hyperparameters, outcomes and :attr:`crossings`, the
        last recorded losses with their step, phase and status by name."""
        columns = {
            name: values
            for name, (dims, values) in self.variables.items()
            if dims == ("run",) and name not in INTERNAL
        }
        columns |= self.crossings | self._final_losses()
        # "" for a cell whose phase is not known yet
        columns["phase"] = np.array([*self.rule.phases, ""], object)[self.phases()]
        columns["status"] = np.array(STATUS, object)[self["status"]]
        first = ["run", *self.hyperparameters]
        return {n: columns[n] for n in (*first, *sorted(set(columns) - set(first)))}

    def constants(self) -> dict[str, NDArray[Any]]:
        """As :meth:`columns`, every field of the experiment that is not among them."""
        indices = self["run"].tolist()
        columns = {}
        for path in scalar_fields(self.grid.experiment):
            if (name := short_name(path)) in self.hyperparameters:
                continue
            values = [
                v if isinstance(v, bool | int | float | str) else value_text(v)
                for v in self.grid.column(path, indices)
            ]
            alike = len({type(v) for v in values}) == 1  # not: a number, or none
            columns[name] = np.array(values if alike else [str(v) for v in values])
            if columns[name].dtype.kind == "U":
                columns[name] = columns[name].astype(object)
        return columns

    def _final_losses(self) -> dict[str, NDArray[Any]]:
        """``final_train_loss``, ``final_val_loss``: at the last recorded step of a cell, which is
        ``final_loss_step``; NaN and -1 where nothing was recorded."""
        if "train_loss" not in self or "val_loss" not in self:
            return {}
        known = ~np.isnan(self["train_loss"])
        at = known.shape[1] - 1 - known[:, ::-1].argmax(1)
        rows = np.arange(len(self))
        losses = {f"final_{name}": self[name][rows, at] for name in ("train_loss", "val_loss")}
        return losses | {"final_loss_step": np.where(known.any(1), self["step"][at], -1)}

    def to_pandas(self) -> pandas.DataFrame:
        """A ``pandas.DataFrame`` of :meth:`columns`. Needs the extra ``grokfast[parquet]``."""
        import pandas

        return pandas.DataFrame(self.columns())

    def save(self, path: str | Path) -> None:
        """Writes the whole file, atomically: readers see the old one or the new one.

        Raises:
            EnvironmentProblem: the file cannot be written; the old one is as it was.
        """
        write_whole(user_path(path), layout.packed(self))

    @classmethod
    def load(cls, path: str | Path, reader: Reader | None = None) -> Results:
        """Reads a results file.

        Args:
            reader: of many files, for those that are older or not as they were written; without
                one each takes a process of its own.

        Raises:
            UsageError: no such file, no grokfast results, or of a newer schema.
            Damaged: it is not as it was written, or holds what no run writes.
        """
        path = user_path(path)
        content = layout.read(path, reader)
        results = cls(
            grid=content.grid,
            variables=content.variables,
            weights=content.weights,
            provenance=content.provenance,
            complete=content.complete,
        )
        for reason in doubts(results, sure=content.sure):
            raise Damaged(path, reason)
        return results


def load(path: str | Path) -> Results:
    """Reads a results file.

    Raises:
        UsageError, Damaged: as :meth:`Results.load`.
    """
    return Results.load(path)


def _ends(values: Sequence[Any]) -> str:
    """Number, first and last value of an axis."""
    ends = " to ".join(value_text(v) for v in dict.fromkeys((values[0], values[-1])))
    return f"{counted(len(values), 'value')}: {ends}"


def _html_table(rows: dict[str, Any]) -> str:
    cells = (
        f"<tr><th>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>"
        for name, value in rows.items()
    )
    return f"<table>{''.join(cells)}</table>"


def listed_digests(digests: dict[str, str]) -> list[str]:
    """What ``data_sha256`` of a file holds, to be read by :meth:`Results.data_digests`: one digest
    a data set in the order of their identities; none of so many that they exceed the 64 kB of an
    HDF5 attribute."""
    return [digests[identity] for identity in sorted(digests)] if len(digests) < 900 else []


def hyperparameter_columns(grid: Grid, indices: Iterable[int]) -> dict[str, NDArray[Any]]:
    """Short name -> value of each listed cell ``[run]``, for every axis and the usual four."""
    indices = list(indices)
    columns = {}
    for path in dict.fromkeys((*grid.axes, *ALWAYS)):
        values = grid.column(path, indices)
        if any(v is None for v in values):
            values = [np.nan if v is None else v for v in values]
        elif isinstance(values[0], tuple):
            values = [value_text(v) for v in values]
        array = np.array(values)
        columns[short_name(path)] = array.astype(object) if array.dtype.kind == "U" else array
    return columns
