"""Files that are whole or not there: written at once, locked, sealed, and read on their guard.

Knows bytes, HDF5 and processes, and nothing of experiments; what the files mean is in
:mod:`grokfast.layout` and :mod:`grokfast.checkpoint`.
"""
