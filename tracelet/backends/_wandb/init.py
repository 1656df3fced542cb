"""Opens a run of Weights & Biases as its user has set W&B up. In the SDK's process, on its main thread."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tracelet.backends._wandb import mapping
from tracelet.errors import PermanentError

_FLUSH_INTERVAL_S: Final = 0.01  # Of wandb-core to its file; 15 s is its default. It costs 1 % of a processor.

_REFUSED: Final = re.compile(r"\b(401|403|404)\b|[Pp]ermission|[Uu]nauthorized|[Nn]ot found")


def open_run(wandb: Any, facts: Mapping[str, Any], given: Mapping[str, Any], tags: Sequence[str]) -> Any:
    """Make the run, or go on with the one that has its id.

    Args:
        wandb: The SDK.
        facts: As `WandbRun` takes them.
        given: The values of `WandbSettings`; None where the user's own W&B settings decide.
        tags: All of the run so far: in the next offline file they would replace those of the last.

    Raises:
        PermanentError: The key is missing or refused, or W&B is switched off.
        ConnectionError: The service can't be reached.
    """
    surroundings = wandb.setup(wandb.Settings(silent=True)).settings
    chosen = {
        "base_url": given["base_url"],
        "api_key": given["api_key"],
        "entity": given["entity"],
        "root_dir": given["dir"],
        "run_group": given["group"],
        "run_job_type": given["job_type"],
        "run_notes": given["notes"],
        "run_tags": tuple(tags) or None,
        "program": facts["program"],
    }
    settings = wandb.Settings(
        **{name: value for name, value in chosen.items() if value is not None},
        mode=given["mode"] or _default_mode(wandb, surroundings, given),
        project=given["project"] or surroundings.project or mapping.project_name(facts["run_project"]),
        run_id=mapping.remote_id(facts["run_uuid"]),
        run_name=facts["run_name"],
        resume="allow",
        reinit="create_new",
        init_timeout=given["timeout_s"],
        finish_timeout=given["finish_timeout_s"],
        x_transaction_log_flush_interval=_FLUSH_INTERVAL_S,
        silent=True,
        symlink=False,
        # Tracelet's collectors record the machine, the repository and the packages, where the user asks for it.
        console="off",
        save_code=False,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )
    try:
        return wandb.init(settings=settings)
    except wandb.errors.Error as error:
        own_fault = isinstance(error, (wandb.errors.AuthenticationError, wandb.errors.UsageError))
        if own_fault or _REFUSED.search(str(error)):
            hint = "check the key (wandb login), the entity and the project"
            raise PermanentError(f"W&B refuses the run: {error}; {hint}") from error
        raise ConnectionError(f"W&B can't be reached: {error}") from error


def _default_mode(wandb: Any, surroundings: Any, given: Mapping[str, Any]) -> str:
    """What `WANDB_MODE` and `wandb offline` say; and online only where there is a key."""
    mode: str = surroundings.mode
    if mode not in ("online", "offline"):
        raise PermanentError(
            f"W&B is set to the mode {mode!r} (WANDB_MODE), in which it takes no records; the journal keeps them. Set "
            "WANDB_MODE to online or offline"
        )
    if mode == "offline" or given["api_key"]:
        return mode
    try:
        wandb.login(host=given["base_url"] or surroundings.base_url)
    except (wandb.errors.UsageError, wandb.errors.AuthenticationError) as error:  # There is no terminal to ask on.
        if os.environ.get("WANDB_MODE") == "online":
            raise PermanentError(f"WANDB_MODE is online, and W&B has no key ({error}); run: wandb login") from error
        return "offline"
    return mode


def place_of(run: Any) -> dict[str, Any]:
    """Where a run is, for `get_status`."""
    return {
        "mode": run.settings.mode,
        "run_id": run.id,
        "project": run.project,
        "entity": run.entity or None,
        "url": None if run.offline else run.url,
    }
