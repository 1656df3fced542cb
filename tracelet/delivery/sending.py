"""Hands records to a backend, and finds the bad one where it refuses them. On the backend's worker thread.

Guarantee: a record is either taken by the backend, or noted in `rejected.jsonl` with the reason, or it stays in the
batch for the next attempt; the cursor moves past the first two alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, final

from tracelet.core.plugins import BackendPlugin
from tracelet.core.records import MetricData
from tracelet.delivery.batch import Batch
from tracelet.delivery.cursor import Cursor
from tracelet.delivery.processing import PluginSink
from tracelet.delivery.retry import Verdict, is_timeout, judge
from tracelet.errors import PartialDeliveryError
from tracelet.utils.text import in_a_line

logger = logging.getLogger(__name__)

_REJECTIONS_SHOWN: Final = 5  # In the log; the file has them all.


class SendingError(Exception):
    """Not all of a batch could be sent."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


@final
class AwayError(SendingError):
    """The backend is away: later it may work."""


@final
class GaveUpError(SendingError):
    """Nothing will work before the user acts."""


@final
class Sender:
    """See the module docstring."""

    def __init__(
        self,
        backend: BackendPlugin,
        name: str,
        cursor: Cursor,
        sink: PluginSink,
        note_error: Callable[[BaseException, MetricData | None], None],
    ) -> None:
        self._backend = backend
        self._name = name
        self._cursor = cursor
        self._sink = sink
        self._note_error = note_error
        self._most = backend.max_batch  # Records of a call: fewer while the backend's answers come too late.

    def send(self, batch: Batch) -> None:
        """Send what is left of a batch; where the backend refuses records, halve them until the bad one stands alone.

        Raises:
            AwayError, GaveUpError: Not all of it could be sent.
        """
        sizes: list[int] = []  # Of the calls to come, the next one last.
        while batch.left:
            records = batch.next(sizes.pop() if sizes else self._most)
            delivered, error = self._handle(records)
            self._cursor.took(delivered)
            batch.arrived(delivered, self._cursor)
            if error is None:
                self._most = min(2 * self._most, self._backend.max_batch)
                continue
            if is_timeout(error):  # The same again would come too late again.
                self._most = max(1, len(records) // 2)
            left = len(records) - delivered
            verdict = judge(error)
            if verdict is Verdict.REJECT and left > 1:
                # After some have arrived it is most likely the next one: it goes alone.
                first = 1 if delivered else left // 2
                sizes += [left - first, first]
            elif verdict is Verdict.REJECT and left:
                self._reject(batch, records[-1], error)
            else:
                self._note_error(error, None)
                if verdict is Verdict.GIVE_UP:
                    raise GaveUpError(error) from error
                if verdict is Verdict.RETRY:
                    raise AwayError(error) from error

    def _handle(self, records: Sequence[MetricData]) -> tuple[int, BaseException | None]:
        """Hand records to the backend: how many have arrived, and what went wrong with the others."""
        try:
            with self._sink.handling(records):
                self._backend.handle_batch(records)
        except PartialDeliveryError as error:
            return max(0, min(error.delivered, len(records))), error.__cause__ or error
        except Exception as error:  # noqa: BLE001  a plug-in may raise anything; `send` judges it
            return 0, error
        return len(records), None

    def _reject(self, batch: Batch, record: MetricData, reason: BaseException) -> None:
        self._note_error(reason, record)
        self._cursor.reject(record, reason)
        batch.arrived(1, self._cursor)
        level = logging.WARNING if self._cursor.rejected <= _REJECTIONS_SHOWN else logging.DEBUG
        why = in_a_line(reason)
        logger.log(level, "%r rejected the record %r: %s (see rejected.jsonl)", self._name, record.name, why)
