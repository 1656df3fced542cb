"""Sets garbage collection up for a process that only delivers records. Called once, on its main thread, at its start.

Records come by the thousand, live for a batch, and form no cycles; with Python's own thresholds the search for cycles
among them takes 40 % of the time that a journal needs to be read.
"""

from __future__ import annotations

import gc
from typing import Final

_THRESHOLDS: Final = (100_000, 20, 20)  # Python's are 700 (later 2,000), 10 and 10.


def expect_many_records() -> None:
    """Look for cycles rarely, and never among what is there already: modules, mostly."""
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
