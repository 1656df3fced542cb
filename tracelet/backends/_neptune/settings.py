"""What can be set of the Neptune backend."""

from __future__ import annotations

import os
from typing import Literal, final

from pydantic import Field, PositiveFloat, SecretStr

from tracelet.backends._base import BackendSettings


@final
class NeptuneSettings(BackendSettings):
    """See `docs/backends/neptune.md`."""

    mode: Literal["offline", "async"] = "offline"
    project: str | None = None
    api_token: SecretStr | None = None
    client: str = Field("neptune", pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")
    connect_timeout_s: PositiveFloat = 10.0
    answer_timeout_s: PositiveFloat = 60.0

    @property
    def package(self) -> str:
        """The package that has the client."""
        return self.client.partition(".")[0]

    @property
    def token(self) -> str | None:
        """The key, from here or from where Neptune's users have it."""
        return self.api_token.get_secret_value() if self.api_token else os.environ.get("NEPTUNE_API_TOKEN")
