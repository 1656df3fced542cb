"""Optional packages: a missing one names its remedy, a broken one its error, and asking imports nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import pytest

from tracelet.errors import MissingDependencyError, PluginContractError
from tracelet.utils.imports import missing, require


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on the path, for packages of the test; what they import is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def test_a_package_that_is_there_is_returned() -> None:
    assert require("json", "The test") is sys.modules["json"]
    assert require("importlib.metadata", "The test") is sys.modules["importlib.metadata"]


@pytest.mark.parametrize(
    ("module", "extra", "target"),
    [
        ("absent_package", "neptune", "'tracelet[neptune]'"),
        ("absent_package", None, "absent_package"),
        ("absent_package.sub", None, "absent_package"),
        ("pynvml", None, "'tracelet[gpu]'"),
        ("PIL", None, "'tracelet[media]'"),
        ("yaml", None, "pyyaml"),
    ],
)
def test_a_missing_package_names_the_line_to_type(
    module: str, extra: str | None, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = module.partition(".")[0]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError) as caught:
        require(module, "The Neptune backend", extra)
    assert str(caught.value) == (
        f"The Neptune backend needs the package '{package}', which is not installed. "
        f"Install it with: pip install {target}"
    )


@pytest.mark.parametrize(
    ("source", "told", "cause"),
    [
        ("import absent_inner", "ModuleNotFoundError: No module named 'absent_inner'", ModuleNotFoundError),
        ("raise OSError('libfoo.so: no such file')", "OSError: libfoo.so: no such file", OSError),
    ],
)
def test_a_package_that_breaks_at_its_import_gives_its_own_error(
    source: str, told: str, cause: type[Exception], site: Path
) -> None:
    (site / "broken_package.py").write_text(source)
    with pytest.raises(MissingDependencyError, match=told) as caught:
        require("broken_package", "The test")
    assert isinstance(caught.value.__cause__, cause)
    assert "is not installed" not in str(caught.value)


def test_a_submodule_that_an_installed_package_lacks_is_not_called_a_missing_package() -> None:
    with pytest.raises(MissingDependencyError, match=r"'json', which is installed but .* 'json\.absent'"):
        require("json.absent", "The test")


def test_a_folder_of_the_same_name_is_no_package(site: Path) -> None:
    (site / "absent_tracker").mkdir()
    assert missing(["absent_tracker"]) == ["absent_tracker"]
    with pytest.raises(MissingDependencyError, match="is not installed"):
        require("absent_tracker", "The test")
    assert missing(["absent_tracker"]) == ["absent_tracker"]  # also once Python has loaded the folder


@pytest.mark.parametrize("fake", [ModuleType("fake_sdk"), MagicMock()])
def test_a_fake_that_a_test_puts_in_place_is_a_package(fake: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fake_sdk", fake)
    assert require("fake_sdk", "The test") is fake
    assert missing(["fake_sdk"]) == []


def test_missing_returns_the_unmet_requirements_as_written_and_in_order() -> None:
    asked = [
        "absent-b",
        "pytest",
        "pytest>=9999",
        "pytest>=1",
        "absent_a>=2",
        "json",
        "scikit-learn>=1",
        "ruamel.absent",
    ]
    assert missing(asked) == ["absent-b", "pytest>=9999", "absent_a>=2", "ruamel.absent"]


def test_a_module_is_compared_by_the_version_of_the_distribution_it_came_from() -> None:
    assert missing(["yaml>=1", "yaml>=9999"]) == ["yaml>=9999"]
    assert missing(["json>=9999"]) == []  # no distribution, no version


def test_a_requirement_for_another_platform_is_met() -> None:
    assert missing(['absent; sys_platform == "nowhere"', 'absent; sys_platform != "nowhere"']) == [
        'absent; sys_platform != "nowhere"'
    ]


def test_missing_imports_nothing(site: Path) -> None:
    (site / "loud_package.py").write_text("raise RuntimeError('imported')")
    assert missing(["loud_package", "loud_package>=1"]) == []
    assert "loud_package" not in sys.modules


def test_a_text_that_is_no_requirement_is_the_plugin_authors_error() -> None:
    with pytest.raises(PluginContractError, match="'mlflow >> 1'"):
        missing(["mlflow >> 1"])
