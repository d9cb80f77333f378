"""OC20 and OC22 in all published formats: text, trajectories, LMDB files, pickles, and archives of these."""

from __future__ import annotations

from geoeq.data.catalysts.reader import OpenCatalystReader

__all__ = ["OpenCatalystReader"]
