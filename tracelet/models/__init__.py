"""Models in their frameworks' own safe formats: what `log_model` writes, and `load_model` reads.

    recorder    `Experiment.log_model`, on the user's thread
    saving      a model to a directory and back
    format      the contract of a format, and which one a model has
    card        `model.json` and `MODEL.md`: what the directory holds, and the code to load it
    *_format    one for each framework; they import theirs when they are used

Guarantee: no pickle is written or read, and what a directory says is never taken as code.
"""

from __future__ import annotations
