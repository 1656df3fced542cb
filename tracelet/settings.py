"""The settings: what is configured, and where each value came from.

`TraceletSettings.load(...)` is called once at the start of an experiment or of a command, on the caller's thread; the
result is immutable and may be read from any thread. The sources are read at that call and at no other time; the
earlier one wins:

1. arguments;
2. environment variables `TRACELET_*`;
3. the file `.env` in the working directory;
4. the table `[tool.tracelet]` of the nearest `pyproject.toml`, from the working directory upwards;
5. the defaults.

The guarantee: a setting that does not exist or a value that does not fit, in any source, is a `SettingsError` that
lists every fault with its source, and no credential is part of that text or of the settings' `repr`.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import reprlib
import tomllib
from abc import ABC
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self, final

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    Secret,
    SecretBytes,
    SecretStr,
    StringConstraints,
    ValidationError,
)
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from tracelet.errors import SettingsError
from tracelet.utils.redaction import Redactor

_PREFIX = "TRACELET_"
_NESTING = "__"
_DAY_S = 86_400.0
_SHARED = frozenset({"plugins", "processors"})
"""The settings that several sources make together, by names of plug-ins."""
_CREDENTIAL_WORD = re.compile(
    r"(?:token|key|secret|password|passwd|passphrase|pwd|credential|auth|authorization)s?(?![a-z])"
)


def _home_expanded(value: object) -> object:
    if value == "":
        raise ValueError("should name a directory")
    return os.path.expanduser(value) if isinstance(value, str) else value


def _listed(value: object) -> object:
    """The items of `a,b` or `["a", "b"]`; anything that is no text as it is."""
    if not isinstance(value, str):
        return value
    if not value.lstrip().startswith("["):
        return [item for item in value.split(",") if item.strip()]
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("should be names with commas between them, or a JSON list of names") from None


def _pattern_list(value: object) -> object:
    """The items of a JSON list, or the one pattern that a text is: it may hold commas."""
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value)
    except ValueError:
        found = value
    return found if isinstance(found, list) else [value] if value else []


def _as_pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"should be a regular expression: {error}") from None
    return value


def _from_json(value: object) -> object:
    """What a variable holds for one key of a mapping."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("should be JSON") from None


def _is_credential(key: object) -> bool:
    """Whether a key of this name may hold a credential: `api_key`, `authToken`, `PASSWORDS`, not `tokenizer`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(key)).lower()
    return _CREDENTIAL_WORD.search(words) is not None


def _hidden(value: Any, secret: bool = False) -> Any:
    """The same configuration with each credential wrapped, so that no `repr` and no dump can show it."""
    if isinstance(value, Mapping):
        return {key: _hidden(item, secret or _is_credential(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(item, secret) for item in value]
    if not secret or value is None or isinstance(value, Secret | SecretStr | SecretBytes):
        return value
    return Secret[Any](value)


def _plain(value: Any) -> Any:
    """A copy of a configuration with each credential unwrapped."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.get_secret_value() if isinstance(value, Secret | SecretStr | SecretBytes) else value


def _named(processors: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    for backend, steps in processors.items():
        if not all(isinstance(step.get("name"), str) and step["name"] for step in steps):
            raise ValueError(f"each processor for {backend!r} should have a name")
    return processors


_Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_Names = Annotated[tuple[_Name, ...], NoDecode, BeforeValidator(_listed)]
_Patterns = Annotated[tuple[Annotated[str, AfterValidator(_as_pattern)], ...], NoDecode, BeforeValidator(_pattern_list)]
_Steps = Annotated[list[dict[str, Any]], BeforeValidator(_from_json)]
_Interval = Annotated[float, Field(gt=0, le=_DAY_S, allow_inf_nan=False)]


@final
class TraceletSettings(BaseSettings):
    """Everything that can be set, with its value in force. Immutable.

    Args:
        arguments: Settings by name; they win over every other source. A text with commas is accepted as a list.

    Raises:
        SettingsError: A source names a setting that does not exist, has a value that does not fit, or cannot be read.
    """

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_nested_delimiter=_NESTING, extra="forbid", frozen=True)

    dir: Annotated[Path, BeforeValidator(_home_expanded)] = Field(
        Path("tracelet_runs"), description="Directory that holds the runs."
    )
    project: _Name = Field("default", description="Project of a run that names none.")
    backend: _Names = Field((), description="Backends that runs are delivered to.")
    collectors: _Names | None = Field(
        None,
        description="Collectors that every run starts; not set means environment, git and system, where they can run.",
    )
    collect_interval_s: _Interval = Field(
        30.0, description="Time between two readings of a collector, in seconds; at most one day."
    )
    stop_timeout_s: float = Field(
        60.0,
        ge=0,
        le=_DAY_S,
        allow_inf_nan=False,
        description="How long `stop()` waits for the backends, in seconds; at most one day.",
    )
    delivery: Literal["thread", "process"] = Field(
        "process", description="Where delivery runs: in a process of its own, or in threads of the training's."
    )
    delivery_linger_s: float = Field(
        600.0,
        ge=0,
        le=_DAY_S,
        allow_inf_nan=False,
        description="How long a delivery process goes on after the run's end, in seconds; at most one day.",
    )
    deliver_ranks: bool = Field(
        False,
        description="Deliver what ranks other than the first record, too, as `rank/1/loss`. The disk has it anyway.",
    )
    journal_mode: Literal["auto", "map", "write"] = Field(
        "auto",
        description="How records are stored: `map` through a memory map, `write` by system calls, "
        "`auto` by the kind of the file system.",
    )
    sync_interval_s: _Interval = Field(
        1.0, description="Time between two synchronisations of the journal with the disk, in seconds."
    )
    heartbeat_s: _Interval = Field(10.0, description="Time between two signs of life of a run, in seconds.")
    segment_bytes: int = Field(
        8 * 2**20, ge=64 * 2**10, le=2**30, description="Largest size of a journal segment, in bytes; 64 KiB to 1 GiB."
    )
    keep_local: Literal["all", "metrics", "none"] = Field(
        "all",
        description="What of a run stays on the disk once its backends have everything: `all`, `metrics` (no files of "
        "artifacts and media), or `none`.",
    )
    disabled: bool = Field(False, description="Record nothing: each call is accepted and does nothing.")
    plugins_allow: _Names | None = Field(
        None, description="Installed plug-ins that may be loaded; not set means every one."
    )
    plugins_deny: _Names = Field((), description="Installed plug-ins that are never loaded.")
    plugins: Annotated[dict[str, dict[str, Any]], AfterValidator(_hidden)] = Field(
        {}, description="Configuration of each plug-in, by the plug-in's name."
    )
    processors: Annotated[dict[str, _Steps], AfterValidator(_named), AfterValidator(_hidden)] = Field(
        {}, description="What is done to records on their way, by backend; `*` is all of them."
    )
    redact_names: _Names = Field((), description="Names whose values are hidden besides those of known credentials.")
    redact_patterns: _Patterns = Field((), description="Regular expressions; what they match is hidden.")
    redact_keep: _Names = Field((), description="Names whose values stay, though they look like those of credentials.")
    show_progress: bool | None = Field(
        None, description="Show a progress bar while `stop()` waits; not set means on a terminal only."
    )

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    def __init__(self, **arguments: Any) -> None:
        # The layers are read and merged here and not by pydantic-settings, which forgets where a value came from,
        # ignores unknown variables, and stops at the first source that has a fault.
        layers = [
            _table_layer(arguments, "argument", "argument"),
            _variable_layer(_EnvironmentSource(TraceletSettings), "environment variable"),
            _dotenv_layer(),
            _pyproject_layer(),
        ]
        faults = [fault for layer in layers for fault in layer.faults]
        values: dict[str, Any] = {}
        origins: dict[str, list[str]] = {}
        for layer in layers:
            for name, origin in layer.origins.items():
                if name not in values or name in _SHARED:
                    origins.setdefault(name, []).append(origin)
            values = _merged(values, layer.values)
        told = {name: ", ".join(parts) for name, parts in origins.items()}
        try:
            super().__init__(**values)
        except ValidationError as error:
            faults += _value_faults(error, told)
        if faults:  # outside the `except`: pydantic's error shows values, and no traceback may show a credential
            raise SettingsError("\n".join(["Tracelet's settings are wrong:", *(f"- {fault}" for fault in faults)]))
        self._origins.update(told)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """For pydantic-settings: one source, the values that `__init__` has merged."""
        return (init_settings,)

    @classmethod
    def load(cls, **arguments: Any) -> Self:
        """Read all sources; an argument of None counts as not given.

        Raises:
            SettingsError: As the class.
        """
        return cls(**{name: value for name, value in arguments.items() if value is not None})

    def plugin_config(self, name: str) -> dict[str, Any]:
        """A copy of a plug-in's configuration, credentials in plain text, for the plug-in alone. Empty without one.

        Args:
            name: The plug-in's name. Case does not matter, and `-` and `_` are one, as in the environment.
        """
        config: dict[str, Any] = _plain(self.plugins.get(_plugin_key(name), {}))
        return config

    def processors_of(self, backend: str) -> list[tuple[str, dict[str, Any]]]:
        """Name and configuration of each processor in front of a backend, in their order; those of `*` come first."""
        steps: list[dict[str, Any]] = _plain(
            [*self.processors.get("*", ()), *self.processors.get(_plugin_key(backend), ())]
        )
        found = ((step["name"], {key: value for key, value in step.items() if key != "name"}) for step in steps)
        return [(name, {**self.plugin_config(name), **config}) for name, config in found]

    def redactor(self) -> Redactor:
        """What keeps credentials out of a run."""
        return Redactor(self.redact_names, self.redact_patterns, self.redact_keep)

    def origins(self) -> dict[str, str]:
        """Where each setting's value came from.

        Returns:
            For each setting `argument`, `environment TRACELET_…`, `.env`, the path of a `pyproject.toml`, or
            `default`; for `plugins` and `processors` all sources with a part in it, divided by commas, the strongest
            first.
        """
        return {name: self._origins.get(name, "default") for name in type(self).model_fields}


@final
@dataclass(frozen=True)
class _Layer:
    """What one source says: values and their origins by setting, and what is wrong with it."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


class _VariableSource(EnvSettingsSource, ABC):
    """Variables as they are: text that should be JSON and is not goes on, and fails with all other faults."""

    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


@final
class _EnvironmentSource(_VariableSource):
    """The variables of the process."""


@final
class _DotEnvSource(_VariableSource, DotEnvSettingsSource):
    """The variables of a file."""


def _variable_layer(source: EnvSettingsSource, label: str, origin: str | None = None) -> _Layer:
    """The layer of variables with our prefix. Without `origin` each value's origin is its variable."""
    faults = []
    spellings: dict[str, list[str]] = {}
    for variable in sorted(source.env_vars):  # in lower case
        if not variable.startswith(_PREFIX.lower()):
            continue
        name, nested, _ = variable.removeprefix(_PREFIX.lower()).partition(_NESTING)
        if name in TraceletSettings.model_fields and (name in _SHARED or not nested):
            spellings.setdefault(name, []).append(variable.upper())
        else:
            faults.append(f"{label} {variable.upper()}: {_advice(name, _PREFIX)}")
    values = {name: value for name, value in source().items() if name in spellings}  # a `.env` has others' too
    origins = {name: origin or f"environment {', '.join(spellings[name])}" for name in values}
    return _Layer(_with_plugin_keys(values), origins, faults)


def _dotenv_layer() -> _Layer:
    try:
        source = _DotEnvSource(TraceletSettings, env_file=".env")
    except (OSError, ValueError) as error:
        return _Layer(faults=[f".env: cannot be read: {error}"])
    return _variable_layer(source, ".env variable", ".env")


def _pyproject_layer() -> _Layer:
    try:
        here = Path.cwd()
        files = (directory / "pyproject.toml" for directory in (here, *here.parents))
        path = next((file for file in files if file.is_file()), None)
    except OSError:  # the working directory is gone or closed to us, and so has no file to read
        path = None
    if path is None:
        return _Layer()
    try:
        table: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return _Layer(faults=[f"{path}: cannot be read: {error}"])
    for key in ("tool", "tracelet"):
        table = table.get(key, {})
        if not isinstance(table, dict):
            return _Layer(faults=[f"{path}: {key!r} should be a table, as in [tool.tracelet]"])
    directory = table.get("dir")
    if isinstance(directory, str) and directory:  # relative to the file, or each working directory had its own runs
        table = {**table, "dir": str(path.parent / os.path.expanduser(directory))}
    return _table_layer(table, f"{path} [tool.tracelet]", str(path))


def _table_layer(table: Mapping[str, Any], label: str, origin: str) -> _Layer:
    values = {name: value for name, value in table.items() if name in TraceletSettings.model_fields}
    faults = [f"{label} {name}: {_advice(name)}" for name in table if name not in values]
    return _Layer(_with_plugin_keys(values), dict.fromkeys(values, origin), faults)


def _advice(unknown: str, prefix: str = "") -> str:
    """What to say about a setting that does not exist; `prefix` is put before the names that it may have meant."""
    known = list(TraceletSettings.model_fields)
    near: Sequence[str] = difflib.get_close_matches(unknown.lower(), known, n=1)
    spelt = [prefix + (name.upper() if prefix else name) for name in near or known]
    return "there is no such setting; " + (f"did you mean {spelt[0]}?" if near else f"there are {', '.join(spelt)}")


def _plugin_key(name: str) -> str:
    """One form for a plug-in's name; an environment variable can hold neither its capitals nor its dashes."""
    return name.lower().replace("-", "_")


def _with_plugin_keys(values: dict[str, Any]) -> dict[str, Any]:
    keyed = {}
    for setting in _SHARED & values.keys():
        if isinstance(values[setting], Mapping):
            items = values[setting].items()
            keyed[setting] = {_plugin_key(name) if isinstance(name, str) else name: config for name, config in items}
    return {**values, **keyed}


def _merged(strong: Mapping[str, Any], weak: Mapping[str, Any]) -> dict[str, Any]:
    """Both, level by level. Where they disagree `strong` wins."""
    merged = {**weak, **strong}
    for key in strong.keys() & weak.keys():
        if isinstance(strong[key], Mapping) and isinstance(weak[key], Mapping):
            merged[key] = _merged(strong[key], weak[key])
    return merged


def _value_faults(error: ValidationError, origins: Mapping[str, str]) -> Iterator[str]:
    for detail in error.errors(include_url=False, include_context=False):
        setting = str(detail["loc"][0])
        place = ".".join(map(str, detail["loc"]))
        # A value below these may be a credential, or hold one, whatever it is called: only its type is told.
        value = type(detail["input"]).__name__ if setting in _SHARED else reprlib.repr(detail["input"])
        expected = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
        yield f"{place} = {value} from {origins.get(setting, 'default')}: {expected}"
