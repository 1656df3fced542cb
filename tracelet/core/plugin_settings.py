"""What the settings of the plug-ins that come with Tracelet have in common.

Checked by `validate_config` on the thread of `Experiment.start()`, before a run begins, and by `initialize` on the
plug-in's own. Guarantee: no value is part of an error's text, for it may be a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from tracelet.errors import SettingsError

RUN_FACTS: Final = frozenset({
    "run_name", "run_id", "run_uuid", "run_project", "run_created_s", "run_program", "run_dir", "run_redactor",
    "state_dir",
})  # fmt: skip
"""What `initialize` is told of the run, beside the settings; see `PluginBase.initialize`."""


class PluginSettings(BaseModel):
    """The base of a plug-in's own settings: unknown names and wrong values are errors that name the remedy."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    kind: ClassVar[str]
    """Of the plug-in: `backend`, `collector`, `processor`."""

    @classmethod
    def parse(cls, plugin: str, config: Mapping[str, Any]) -> Self:
        """Check the configuration of a plug-in; what the run is, is passed over.

        Raises:
            SettingsError: A name is unknown or a value does not fit.
        """
        try:
            return cls(**{name: value for name, value in config.items() if name not in RUN_FACTS})
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=False, include_input=False)
        known = ", ".join(cls.model_fields)
        faults = [
            f"{'.'.join(map(str, detail['loc']))}: "
            + (f"there is no such setting; there are {known}" if detail["type"] == "extra_forbidden" else detail["msg"])
            for detail in details
        ]
        raise SettingsError(f"the settings of the {cls.kind} {plugin!r} are wrong: {'; '.join(faults)}")
