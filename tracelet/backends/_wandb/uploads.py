"""Hands artifacts to wandb-core. In the SDK's process: `log` on its main thread, `upload` on that of the artifacts.

The SDK reads each file for its digest (a second or two for a gigabyte) and asks the service for the artifact's type,
before wandb-core uploads it by itself. None of that may hold up a row, hence a thread. The SDK can be called from two
threads; the one thing that it does not guard is its configuration, which it reads for each artifact: where that has
changed meanwhile, the artifact comes again.

Guarantee: when `upload` returns, the artifact is with the service, or offline in the run's file. One that comes twice
is the same version there, since the service knows it by its digest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

from tracelet.backends._wandb.artifacts import aliases, artifact
from tracelet.backends._wandb.log import Sent
from tracelet.core.records import MetricData, MetricType
from tracelet.delivery.retry import Verdict, judge


@final
class Uploads:
    """See the module docstring."""

    def __init__(self, wandb: Any, run: Any, sent: Sent, probe: Callable[[], object]) -> None:
        """Take the artifacts of one run.

        Args:
            wandb: The SDK.
            run: The SDK's run.
            sent: Counts what goes to the run's file.
            probe: Fails where wandb-core is gone.
        """
        self._wandb = wandb
        self._run = run
        self._sent = sent
        self._probe = probe

    def log(self, record: MetricData) -> Any:
        """Hand an artifact over, and give the SDK's object; nothing is waited for.

        Raises:
            RejectedError, ValueError: The file is gone, or W&B can't have it.
            OSError: wandb-core is gone.
        """
        made = self._run.log_artifact(artifact(self._wandb, record), aliases=aliases(record))
        if self._run.offline:  # Online, what goes to the service is not in the file.
            self._sent.add("artifact")
        return made

    def upload(self, fields: Sequence[Any]) -> dict[str, str]:
        """Hand an artifact over, and wait until it has arrived.

        Args:
            fields: As `WandbRun.take` has those of a record.

        Returns:
            Nothing; or why it is `rejected`, or has `failed` and may come again.

        Raises:
            OSError: wandb-core is gone, or does not write.
        """
        name, value, kind, *others = fields
        try:
            made = self.log(MetricData(name, value, MetricType(kind), *others))
        except Exception as error:  # noqa: BLE001  the SDK may raise anything; it is judged
            return self._fault("rejected" if judge(error) is Verdict.REJECT else "failed", error)
        if self._run.offline:
            self._sent.wait("artifact")
            return {}
        try:
            made.wait()
        except Exception as error:  # noqa: BLE001  as above: its `ValueError` says that the upload failed
            return self._fault("failed", error)
        return {}

    def _fault(self, kind: str, error: Exception) -> dict[str, str]:
        self._probe()
        return {kind: f"{type(error).__name__}: {error}"}
