"""Alerts: what a processor has noticed in a series. Plain values, made on a backend's thread."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Self, final

from tracelet.core.records import TAG_PREFIX, MetricData, MetricType

ALERT_NAME: Final = "tracelet/alert"
"""An alert is recorded in the journal as a CUSTOM record of this name; trackers get no more of it than the tag."""

ALERT_TAG: Final = "alert"
"""The tag of a run in which something was noticed: the text of its first alert."""


@final
@dataclass(frozen=True, slots=True)
class Alert:
    """Something that a person should look at.

    Attributes:
        kind: `nan`, `inf` or `spike`.
        series: The name of the series.
        step: Where it is.
        value: The value there.
        text: The same for people.
    """

    kind: str
    series: str
    step: int | None
    value: float
    text: str

    def record(self) -> MetricData:
        """As a record, to be emitted by the plug-in that has noticed it."""
        return MetricData(ALERT_NAME, asdict(self), MetricType.CUSTOM, self.step)

    def tag(self, timestamp: float | None = None) -> MetricData:
        """As the run's tag."""
        return MetricData(TAG_PREFIX + ALERT_TAG, self.text, MetricType.CUSTOM, None, timestamp)

    @classmethod
    def of(cls, value: Any) -> Self:
        """Read the value of `record()` back.

        Raises:
            TypeError: It is none.
        """
        return cls(**value)
