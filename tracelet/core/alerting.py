"""What becomes of an alert: a line of the log, a tag of the run, and a call of the user's function.

Called on the backends' threads and on the sidecar's, never on the training's. Several backends may have the same
processor, and a delivery that begins anew may say a thing again: each alert is taken once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, final

from tracelet.core.alerts import Alert
from tracelet.core.records import MetricData

logger = logging.getLogger(__name__)

OnAlert = Callable[[Alert], object]

_MAX_KNOWN: Final = 10_000  # Alerts beyond are not told any more: somebody has a look, or nobody.


@final
class Alerting:
    """See the module docstring."""

    def __init__(self) -> None:
        self.callbacks: list[OnAlert] = []
        self._known: set[tuple[str, str, int | None]] = set()
        self._lock = threading.Lock()

    def take(self, record: MetricData) -> MetricData | None:
        """Tell of an alert that a plug-in has emitted; gives the run's tag, where it is the first one."""
        try:
            alert = Alert.of(record.value)
        except TypeError as error:  # A stranger's record of this name.
            logger.debug("this is no alert: %s", error)
            return None
        if not self._is_new(alert):
            return None
        logger.warning("%s", alert.text)
        self._call(alert)
        return alert.tag() if len(self._known) == 1 else None

    def notify(self, fields: Mapping[str, Any]) -> None:
        """Tell of an alert that another process has taken, which has logged and recorded it.

        Raises:
            TypeError: It is none.
        """
        alert = Alert.of(fields)
        if self._is_new(alert):
            self._call(alert)

    def _is_new(self, alert: Alert) -> bool:
        identity = (alert.kind, alert.series, alert.step)
        with self._lock:
            if identity in self._known or len(self._known) >= _MAX_KNOWN:
                return False
            self._known.add(identity)
            return True

    def _call(self, alert: Alert) -> None:
        for callback in self.callbacks:
            try:
                callback(alert)
            except Exception:
                logger.exception("a function that on_alert() was given failed")
