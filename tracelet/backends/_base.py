"""What the backends of trackers share: the facts of the run, and settings that are checked before training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self, final

from pydantic import BaseModel, ConfigDict, ValidationError

from tracelet.errors import SettingsError


@final
@dataclass(frozen=True, slots=True)
class RunFacts:
    """What `initialize` is told of the run; see `PluginBase.initialize`."""

    run_name: str
    run_id: str
    run_uuid: str
    run_project: str
    run_created_s: float
    run_dir: Path
    state_dir: Path
    run_program: str | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """The run's facts among all that `initialize` is given."""
        return cls(**{field.name: config[field.name] for field in fields(cls) if field.name in config})


class BackendSettings(BaseModel):
    """The base of a backend's own settings: unknown names and wrong values are errors that name the remedy."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @classmethod
    def parse(cls, backend: str, config: Mapping[str, Any]) -> Self:
        """Check a backend's configuration; what `RunFacts` takes is passed over.

        Raises:
            SettingsError: A name is unknown or a value does not fit. No value is part of the text: it may be a key.
        """
        facts = {field.name for field in fields(RunFacts)}
        try:
            return cls(**{name: value for name, value in config.items() if name not in facts})
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=False, include_input=False)
        known = ", ".join(cls.model_fields)
        faults = [
            f"{'.'.join(map(str, detail['loc']))}: "
            + (f"there is no such setting; there are {known}" if detail["type"] == "extra_forbidden" else detail["msg"])
            for detail in details
        ]
        raise SettingsError(f"the settings of the backend {backend!r} are wrong: {'; '.join(faults)}")
