"""Ends a run of Weights & Biases. In the SDK's process, on its main thread."""

from __future__ import annotations

from typing import Any, Final

from tracelet.utils.imports import require

EXIT_CODES: Final = {"finished": 0, "failed": 1, "killed": 255}  # 255 is what the SDK has for Ctrl-C.


def end_run(run: Any, status: str | None) -> None:
    """End the run as its status says; without one, bring out what there is and leave it open.

    Raises:
        TimeoutError: The service has not got everything; the next start sends the rest.
    """
    if status is None:
        exit_record = require("wandb.proto.wandb_internal_pb2", "The W&B backend").RunExitRecord(not_complete=True)
        # `finish` has no word for a run that goes on, though wandb-core has.
        run._interface._make_exit = lambda _: exit_record  # noqa: SLF001  as the line above
    run.finish(exit_code=EXIT_CODES.get(status or "finished", 1))
    if run._finish_timed_out:  # noqa: SLF001  else told in print alone, or by an error amid the clean-up
        raise TimeoutError("W&B has not got everything in time; the next start of the run sends the rest")
