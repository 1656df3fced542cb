"""What a `SummaryWriter` has as `file_writer`: for scripts that flush it, ask for its directory or give it summaries.

Called on any thread. Guarantee: as that of the `SummaryWriter`, whose methods its own end in.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from tracelet.frameworks._torch.summary_writer import SummaryWriter

logger = logging.getLogger(__name__)


@final
class FileWriter:
    """See the module docstring."""

    def __init__(self, writer: SummaryWriter) -> None:
        """Stand for this writer."""
        self._writer = writer

    def get_logdir(self) -> str:
        """The directory of the script's own files."""
        return self._writer.get_logdir()

    def add_summary(self, summary: Any, global_step: Any = None, walltime: float | None = None) -> None:
        """Record the numbers and histograms of a `Summary` protocol buffer; the log says what else it holds."""
        for value in summary.value:
            match value.WhichOneof("value"):
                case "simple_value":
                    self._writer.add_scalar(value.tag, value.simple_value, global_step, walltime)
                case "histo":
                    histo = value.histo
                    self._writer.add_histogram_raw(
                        value.tag, histo.min, histo.max, histo.num, histo.sum, histo.sum_squares,
                        list(histo.bucket_limit), list(histo.bucket), global_step, walltime,
                    )  # fmt: skip
                case other:
                    logger.warning("a summary's %s, %.200r, is not recorded", other or "metadata", value.tag)

    def add_event(self, event: Any, step: Any = None, walltime: float | None = None) -> None:
        """Record an `Event` protocol buffer, as `add_summary`."""
        self.add_summary(event.summary, step, walltime)

    def flush(self) -> None:
        """As the writer's."""
        self._writer.flush()

    def close(self) -> None:
        """As the writer's."""
        self._writer.close()

    def reopen(self) -> None:
        """Nothing is needed: the next record reopens the run."""
