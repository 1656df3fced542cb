"""Settings: five sources in order, every fault told with its source, no credential shown."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import traceback
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_core import to_jsonable_python

from tracelet.errors import SettingsError
from tracelet.settings import TraceletSettings

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and an environment without our variables."""
    for name in [name for name in os.environ if name.upper().startswith("TRACELET_")]:
        monkeypatch.delenv(name)
    directory = tmp_path / "work" / "here"
    directory.mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()  # whatever lies above the test's directory is no part of it
    monkeypatch.chdir(directory)
    return directory


def faults(**arguments: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        TraceletSettings.load(**arguments)
    head, *lines = str(caught.value).splitlines()
    assert head == "Tracelet's settings are wrong:"
    return [line.removeprefix("- ") for line in lines]


def pyproject(directory: Path, text: str) -> Path:
    path = directory / "pyproject.toml"
    path.write_text(f"[tool.tracelet]\n{text}\n")
    return path


def test_without_any_source_every_value_is_the_default() -> None:
    assert set(TraceletSettings.load().origins().values()) == {"default"}
    assert set(TraceletSettings.load().origins()) == set(TraceletSettings.model_fields)


def test_the_earlier_source_wins_and_each_origin_is_told(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pyproject(here, 'project = "toml"\nheartbeat_s = 4\njournal_mode = "map"\nbackend = ["toml"]')
    (here / ".env").write_text("TRACELET_PROJECT=file\nTRACELET_HEARTBEAT_S=3\nTRACELET_BACKEND=file\n")
    monkeypatch.setenv("TRACELET_PROJECT", "environment")
    monkeypatch.setenv("TRACELET_HEARTBEAT_S", "2")
    settings = TraceletSettings(project="argument")
    origins = settings.origins()
    assert (settings.project, origins["project"]) == ("argument", "argument")
    assert (settings.heartbeat_s, origins["heartbeat_s"]) == (2.0, "environment TRACELET_HEARTBEAT_S")
    assert (settings.backend, origins["backend"]) == (("file",), ".env")
    assert (settings.journal_mode, origins["journal_mode"]) == ("map", str(path))
    assert (settings.disabled, origins["disabled"]) == (False, "default")


def test_an_argument_of_none_is_not_given_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACELET_PROJECT", "environment")
    settings = TraceletSettings.load(project=None, backend=None)
    assert (settings.project, settings.backend) == ("environment", ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mlflow", ("mlflow",)),
        ("mlflow, wandb,", ("mlflow", "wandb")),
        ('["mlflow", "wandb"]', ("mlflow", "wandb")),
        ("", ()),
        ("[]", ()),
    ],
)
@pytest.mark.parametrize("name", ["backend", "collectors", "plugins_allow", "plugins_deny"])
def test_a_list_is_names_with_commas_or_json_in_every_source(
    name: str, text: str, expected: tuple[str, ...], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert getattr(TraceletSettings.load(**{name: text}), name) == expected
    path = pyproject(here, f"{name} = {json.dumps(text)}")
    assert getattr(TraceletSettings.load(), name) == expected
    path.unlink()
    (here / ".env").write_text(f"TRACELET_{name.upper()}={text!r}\n")
    assert getattr(TraceletSettings.load(), name) == expected
    monkeypatch.setenv(f"TRACELET_{name.upper()}", text)
    assert getattr(TraceletSettings.load(), name) == expected


def test_only_the_nearest_pyproject_counts(here: Path) -> None:
    pyproject(here.parent.parent, 'project = "far"')
    near = pyproject(here.parent, "disabled = true")
    settings = TraceletSettings.load()
    assert (settings.project, settings.disabled) == ("default", True)
    assert settings.origins()["disabled"] == str(near)


def test_a_relative_directory_starts_where_it_is_written(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyproject(here.parent, 'dir = "runs"')
    assert TraceletSettings.load().dir == here.parent / "runs"
    assert TraceletSettings.load(dir="mine").dir == Path("mine")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("TRACELET_DIR", "~/runs")
    assert TraceletSettings.load().dir == Path("/home/me/runs")


def test_without_a_working_directory_the_other_sources_count(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACELET_PROJECT", "environment")
    here.rmdir()
    assert TraceletSettings.load(disabled=True).project == "environment"


def test_a_misspelt_setting_is_told_with_its_source_and_the_nearest_one(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pyproject(here, "journal_mod = 1")
    (here / ".env").write_text("TRACELET_BACKENDS=x\nDATABASE_URL=y\nBACKEND=z\n")
    monkeypatch.setenv("TRACELET_PROJCT", "x")
    monkeypatch.setenv("TRACELET_DIR__X", "x")
    assert faults(PROJET="x") == [
        "argument PROJET: there is no such setting; did you mean project?",
        "environment variable TRACELET_DIR__X: there is no such setting; did you mean TRACELET_DIR?",
        "environment variable TRACELET_PROJCT: there is no such setting; did you mean TRACELET_PROJECT?",
        ".env variable TRACELET_BACKENDS: there is no such setting; did you mean TRACELET_BACKEND?",
        f"{path} [tool.tracelet] journal_mod: there is no such setting; did you mean journal_mode?",
    ]


def test_a_setting_like_no_other_is_told_with_all_that_exist() -> None:
    (fault,) = faults(zzz=1)
    assert fault.startswith("argument zzz: there is no such setting; there are dir, project, backend, ")


def test_wrong_values_and_unknown_settings_are_told_together(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pyproject(here, 'journal_mode = "fast"')
    (here / ".env").write_text("TRACELET_SEGMENT_BYTES=12\n")
    monkeypatch.setenv("TRACELET_BACKEND", "[mlflow")
    monkeypatch.setenv("TRACELET_X", "1")
    found = faults(heartbeat_s="soon")
    assert found[0].startswith("environment variable TRACELET_X: there is no such setting")
    assert found[1:] == [
        "backend = '[mlflow' from environment TRACELET_BACKEND: "
        "should be names with commas between them, or a JSON list of names",
        f"journal_mode = 'fast' from {path}: should be 'auto', 'map' or 'write'",
        "heartbeat_s = 'soon' from argument: should be a valid number, unable to parse string as a number",
        "segment_bytes = '12' from .env: should be greater than or equal to 65536",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dir", ""),
        ("dir", 3),
        ("project", " "),
        ("backend", ["mlflow", ""]),
        ("backend", 3),
        ("collect_interval_s", 0),
        ("collect_interval_s", float("nan")),
        ("stop_timeout_s", -1),
        ("stop_timeout_s", float("inf")),
        ("sync_interval_s", 0),
        ("heartbeat_s", 1e9),
        ("segment_bytes", 2**31),
        ("delivery", "pigeon"),
        ("plugins", {"acme": "x"}),
        ("show_progress", "perhaps"),
    ],
)
def test_a_value_out_of_its_range_is_refused(name: str, value: object) -> None:
    (fault,) = faults(**{name: value})
    assert fault.startswith(name)
    assert " from argument: " in fault


def test_a_stop_timeout_of_zero_is_allowed() -> None:
    assert TraceletSettings.load(stop_timeout_s=0).stop_timeout_s == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"[tool.tracelet]\nproject = \n", "(at line 2, column 11)"),
        (b"[tool.tracelet]\nproject = '\xff'\n", "invalid start byte"),
        (b"[tool]\ntracelet = 3\n", "should be a table"),
        (b"tool = 3\n", "should be a table"),
    ],
)
def test_a_broken_pyproject_names_the_file_and_the_place(text: bytes, told: str, here: Path) -> None:
    path = here / "pyproject.toml"
    path.write_bytes(text)
    (fault,) = faults()
    assert fault.startswith(f"{path}: ")
    assert told in fault


def test_a_broken_env_file_is_named(here: Path) -> None:
    (here / ".env").write_bytes(b"TRACELET_PROJECT=\xff\n")
    (fault,) = faults()
    assert fault.startswith(".env: cannot be read: ")


def test_plugin_configuration_is_made_from_all_sources(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pyproject(here, '[tool.tracelet.plugins.acme-tracker]\nurl = "toml"\nretries = 3\nnest = {a = 1, b = 1}')
    (here / ".env").write_text('TRACELET_PLUGINS={"other": {"camelCase": [1]}}\n')
    monkeypatch.setenv("TRACELET_PLUGINS__ACME_TRACKER__URL", "environment")
    settings = TraceletSettings.load(plugins={"Acme_Tracker": MappingProxyType({"nest": {"b": 2}})})
    assert settings.plugin_config("ACME-tracker") == {"url": "environment", "retries": 3, "nest": {"a": 1, "b": 2}}
    assert settings.plugin_config("other") == {"camelCase": [1]}
    assert settings.plugin_config("absent") == {}
    assert settings.origins()["plugins"] == f"argument, environment TRACELET_PLUGINS__ACME_TRACKER__URL, .env, {path}"


def test_a_plugin_in_a_variable_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACELET_PLUGINS__ACME", '{"retries": 3, "maxRate": 0.5}')
    monkeypatch.setenv("TRACELET_PLUGINS__ACME__ID", "007")
    assert TraceletSettings.load().plugin_config("acme") == {"retries": 3, "maxRate": 0.5, "id": "007"}


def test_a_plugins_configuration_is_a_copy() -> None:
    settings = TraceletSettings.load(plugins={"acme": {"list": [1], "api_key": "x"}})
    settings.plugin_config("acme")["list"].append(2)
    assert settings.plugin_config("acme") == {"list": [1], "api_key": "x"}


CREDENTIALS = {
    "api_key": "hush1",
    "authToken": "hush2",
    "PASSWORD": "hush3",
    "client_secrets": ["hush4"],
    "apiKeyId": "hush9",
    "credentials": {"user": "hush5"},
    "deep": {"access-key-id": "hush6", "pin": SecretStr("hush7")},
    "headers": {"Authorization": "Bearer hush8"},
}


def test_a_credential_is_shown_to_its_plugin_and_nowhere_else() -> None:
    settings = TraceletSettings.load(plugins={"acme": {**CREDENTIALS, "tokenizer": "bert", "secret": None}})
    for shown in (repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())):
        assert "hush" not in shown
        assert "bert" in shown
    assert settings.plugin_config("acme") == {
        **CREDENTIALS,
        "deep": {"access-key-id": "hush6", "pin": "hush7"},
        "tokenizer": "bert",
        "secret": None,
    }


@pytest.mark.parametrize("variable", ["PLUGINS", "PLUGINS__ACME", "PLUGINS__TOKEN", "PROJCT", "TOKEN"])
@pytest.mark.parametrize("value", ["hush", '{"token": "hush"', '["hush"]', '{"x": ["hush"]}'])
def test_an_error_shows_no_credential(variable: str, value: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"TRACELET_{variable}", value)
    (here / ".env").write_text(f"TRACELET_{variable}={value!r}\n")
    plugins = {"other": "hush"}
    with pytest.raises(SettingsError) as caught:
        TraceletSettings.load(plugins=plugins)
    assert "hush" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_settings_are_frozen_and_survive_pickle_and_copy() -> None:
    settings = TraceletSettings(project="x", plugins={"acme": {"token": "t"}})
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, "project", "y")  # noqa: B010  # mypy would refuse the plain assignment too
    for twin in (pickle.loads(pickle.dumps(settings)), copy.deepcopy(settings)):
        assert twin == settings
        assert twin.origins() == settings.origins()
        assert twin.plugin_config("acme") == {"token": "t"}


def test_the_page_documents_each_setting_and_its_default() -> None:
    documented = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE))
    defaults = {
        name: "not set" if field.default is None else f"`{json.dumps(to_jsonable_python(field.default))}`"
        for name, field in TraceletSettings.model_fields.items()
    }
    assert documented == defaults


def test_the_page_says_what_each_setting_is_for_in_the_settings_own_words() -> None:
    meanings = dict(re.findall(r"^\| `(\w+)` \| .+? \| (.+) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE))
    for name, field in TraceletSettings.model_fields.items():
        assert meanings[name].startswith((field.description or "").removesuffix("."))


STEPS = '[{"name": "thin", "every": 10}, {"name": "drop", "match": "a"}]'


def test_processors_come_in_their_order_those_of_all_backends_first(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyproject(here, '[tool.tracelet.processors]\n"*" = [{name = "rename", pattern = "x", replacement = "y"}]')
    monkeypatch.setenv("TRACELET_PROCESSORS__MY_BACKEND", STEPS)
    settings = TraceletSettings.load(plugins={"thin": {"extremes": False, "every": 5}})
    renaming = ("rename", {"pattern": "x", "replacement": "y"})
    assert [renaming, ("thin", {"extremes": False, "every": 10}), ("drop", {"match": "a"})] == settings.processors_of(
        "My-Backend"
    )
    assert [renaming] == settings.processors_of("other")


@pytest.mark.parametrize(
    ("processors", "why"),
    [({"a": [{"every": 10}]}, "should have a name"), ({"a": "thin"}, "should be JSON"), ({"a": {"name": "t"}}, "list"),
     ({"a": ["thin"]}, "dict")],
)  # fmt: skip
def test_processors_that_are_none_are_refused(processors: object, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        TraceletSettings(processors=processors)


def test_a_pattern_of_the_environment_may_hold_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACELET_REDACT_PATTERNS", r"ACME-\d{1,3}")
    assert (r"ACME-\d{1,3}",) == TraceletSettings().redact_patterns
    monkeypatch.setenv("TRACELET_REDACT_PATTERNS", '["a", "b"]')
    assert ("a", "b") == TraceletSettings().redact_patterns
    with pytest.raises(SettingsError, match="should be a regular expression"):
        TraceletSettings(redact_patterns=["("])
