"""Hands rows of the history to wandb-core. In the SDK's process, on its main thread, in the order of the calls.

`run.log` looks into each value for charts and media, and for each row it waits for the SDK's own thread: 160 µs for ten
numbers. A row of numbers becomes the same message here in 40 µs, and many rows are handed over in one go. That uses the
SDK's inside, so where a later SDK has another one, every row goes by `run.log`.

The guarantee: when `send` returns, wandb-core has been sent all rows.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from typing import Any, Final, final

from tracelet.utils.imports import require

logger = logging.getLogger(__name__)

_MAX_ROWS: Final = 50  # That wait: wandb-core works on them while the next ones are made.


@final
class History:
    """See the module docstring."""

    def __init__(self, run: Any) -> None:
        """Take the rows for `run`, a run of the SDK's."""
        self._run = run
        self._requests: list[Any] = []
        self._knows_inside = True
        try:
            interface = run._interface  # noqa: SLF001  see the module docstring
            self._stream_id = interface._stream_id  # noqa: SLF001  as the line above
            self._publish = interface._client.publish  # noqa: SLF001  as the line above
            self._finish = interface._asyncer.run  # noqa: SLF001  as the line above
            self._request = require("wandb.proto.wandb_server_pb2", "The W&B backend").ServerRequest
            self._message({"_timestamp": 0.0})
        except (AttributeError, ImportError, TypeError, ValueError) as error:
            logger.debug("this SDK of W&B is another one inside; all rows go by run.log: %r", error)
            self._knows_inside = False

    def log(self, row: dict[str, Any]) -> None:
        """Take a row."""
        if self._knows_inside and all(type(value) in (float, int) for value in row.values()):
            self._requests.append(self._message(row))
            if len(self._requests) >= _MAX_ROWS:
                self.send()
        else:
            self.send()  # The order is that of the calls.
            self._run.log(row)

    def send(self) -> None:
        """Hand over what waits.

        Raises:
            OSError: wandb-core is gone.
        """
        requests, self._requests = self._requests, []
        if requests:
            self._finish(lambda: self._send(requests))

    async def _send(self, requests: list[Any]) -> None:
        for request in requests:
            await self._publish(request)

    def _message(self, row: Mapping[str, float]) -> Any:
        request = self._request()
        record = request.record_publish
        record._info.stream_id = self._stream_id  # noqa: SLF001  the name of a field
        add = record.request.partial_history.item.add
        for key, value in row.items():
            add(key=key, value_json=repr(value) if math.isfinite(value) else json.dumps(value))
        return request
