"""What can be set of the Weights & Biases backend."""

from __future__ import annotations

from typing import Any, Literal, final

from pydantic import Field, SecretStr

from tracelet.backends._base import BackendSettings


@final
class WandbSettings(BackendSettings):
    """What can be set. None: W&B's own settings decide (`WANDB_…` variables, `wandb login`, its settings files).

    Attributes:
        mode: None: as `WANDB_MODE` says, else online where W&B has a key, else offline.
        project: None: `WANDB_PROJECT`, else the run's project.
        dir: Where the directory `wandb` is made. None: `WANDB_DIR`, else the working directory.
        api_key: None: the one that W&B finds. It reaches no file and no environment.
        timeout_s: How long an attempt to reach the service may take.
        finish_timeout_s: How long the end of a run may take to bring the last records to the service.
    """

    mode: Literal["online", "offline"] | None = None
    project: str | None = None
    entity: str | None = None
    dir: str | None = None
    group: str | None = None
    job_type: str | None = None
    notes: str | None = None
    api_key: SecretStr | None = None
    base_url: str | None = None
    timeout_s: float = Field(30.0, gt=0)
    finish_timeout_s: float = Field(300.0, gt=0)

    def revealed(self) -> dict[str, Any]:
        """The values with the key in plain, for the SDK's process alone."""
        return {**self.model_dump(), "api_key": self.api_key and self.api_key.get_secret_value()}
