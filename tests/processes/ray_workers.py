"""Ray Train with two workers on this machine: `ray_workers.py DIRECTORY SCRATCH`."""

from __future__ import annotations

import sys
from typing import Any


def work(config: dict[str, Any]) -> None:
    import ray.train

    import tracelet

    rank = ray.train.get_context().get_world_rank()
    with tracelet.shared_experiment("ray", dir=config["dir"]) as run:
        for step in range(3):
            run.log_metric("loss", float(rank + step), step)


def main(directory: str, scratch: str) -> None:
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    TorchTrainer(
        work,
        train_loop_config={"dir": directory},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
        run_config=RunConfig(storage_path=scratch),
    ).fit()
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
