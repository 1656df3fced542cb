"""Trainings, each in a process of its own: python training.py DIRECTORY,RUN_ID,PLAN…  DIRECTORY,RUN_ID,PLAN…

The packages are imported once; for each argument this process forks one that trains in the directory and ends as any
program does, and prints how. With `torchrun` there is one argument, and nothing is forked.

A PLAN of `killed` ends after step 5 with a kill, after checkpoints of steps 2 and 4; `fails` raises in step 3,
`handled` does so and goes on; `interrupted` gets a Ctrl-C; `resumes` goes on from the last checkpoint; `restores` has
the trainer restore its callbacks; `ranks` has all ranks record; `evaluates` evaluates first.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import torch
from transformers import TrainerCallback

from tests.adapters.hf.helpers import Fail, reviews, trainer
from tracelet_hf import TraceletCallback


class Signal(TrainerCallback):
    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), self.number)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for argument in sys.argv[1:]:
        directory, run_id, *plans = argument.split(",")
        child = 0 if "RANK" in os.environ else os.fork()
        if child == 0:
            break
        print(directory, "ended:", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    else:
        sys.exit()
    os.chdir(directory)
    others = {
        "killed": Signal(5, signal.SIGKILL),
        "interrupted": Signal(3, signal.SIGINT),
        "fails": Fail(3, RuntimeError("no memory")),
        "handled": Fail(3, RuntimeError("no memory")),
    }
    callback = TraceletCallback(run_id=None if "resumes" in plans else run_id, all_ranks="ranks" in plans)
    made = trainer(
        callback,
        *(others[plan] for plan in plans if plan in others),
        save_strategy="steps",
        save_steps=2,
        restore_callback_states_from_checkpoint="restores" in plans,
    )
    if "evaluates" in plans:
        made.evaluate(reviews(8, 1))
    try:
        made.train(resume_from_checkpoint="resumes" in plans)
    except RuntimeError:
        if "handled" not in plans:
            raise
    if "resumes" in plans and made.is_world_process_zero():
        assert run_id == callback.run_id
    callback.experiment.log_metric("after", float(made.args.process_index), made.state.global_step)
