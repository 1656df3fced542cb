"""A loop of Accelerate's in two processes, for `test_tracker`: python -m torch.distributed.run accelerated.py"""

from __future__ import annotations

from accelerate import Accelerator

import tracelet_hf

if __name__ == "__main__":
    own = tracelet_hf.TraceletTracker("p", run_id="own")
    accelerator = Accelerator(cpu=True, log_with=["tracelet", own])
    assert 2 == accelerator.num_processes
    accelerator.init_trackers("p", config={"lr": 0.1}, init_kwargs={"tracelet": {"run_id": "ddp"}})
    accelerator.log({"loss": 1.0}, step=0)
    for tracker in (accelerator.get_tracker("tracelet"), own):
        tracker.start()
        tracker.log({"rank": float(accelerator.process_index)}, step=0)
    accelerator.end_training()
