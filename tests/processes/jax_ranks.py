"""What each process of `jax.distributed` runs in the tests: `jax_ranks.py RANK PORT DIRECTORY`."""

from __future__ import annotations

import sys

import jax

import tracelet


def main(rank: str, port: str, directory: str) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(rank))
    with tracelet.shared_experiment("jäx", dir=directory) as run:
        for step in range(3):
            run.log_metric("loss", jax.numpy.float32(int(rank) + step), step)
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
