"""What Tracelet costs, measured beside what it is compared with: `python -m benchmarks [NAME…] [--scale 0.1]`.

Each module is one benchmark. Its `main(scale)` measures, prints one table and returns nothing: a missed target is a
printed word, never an exit code, since another program on the same machine can cause it.
"""

from __future__ import annotations
