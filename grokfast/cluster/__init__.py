"""A grid on many machines: blocks of its cells as tasks of Ray Core.

Ray carries JSON and paths. A task trains the cells of its block as one machine trains a grid, into
a results file and a checkpoint of its own in ``<out>.parts``, on storage that all machines share;
the driver hands out blocks, watches, and joins the parts to the file that one machine would have
written. Nothing but :mod:`grokfast.cluster.engine` knows Ray, which is imported when it is used.
"""

from grokfast.cluster.driver import SomeFailed, run

__all__ = ["SomeFailed", "run"]
