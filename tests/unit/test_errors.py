from __future__ import annotations

import inspect
import pickle
import re

import pytest

import tracelet
from tracelet import errors

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__]


def test_every_error_of_ours_is_a_tracelet_error():
    assert all(issubclass(cls, errors.TraceletError) for cls in CLASSES)


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.InvalidNameError, TypeError),
        (errors.SettingsError, ValueError),
        (errors.RunNotFoundError, LookupError),
        (errors.PluginNotFoundError, LookupError),
        (errors.MissingDependencyError, ImportError),
        (errors.PluginContractError, TypeError),
    ],
)
def test_an_error_that_python_has_a_kind_for_is_of_that_kind(cls: type[Exception], builtin: type[Exception]):
    assert issubclass(cls, builtin)


def test_the_tree_in_the_docstring_is_that_of_the_classes():
    assert errors.__doc__ is not None
    drawn: dict[str, str] = {}
    parents = {0: "Exception"}
    for line in errors.__doc__.splitlines():
        found = re.match(r"(?P<lead>[ │├└─]*)(?P<name>\w+Error)\b( .*)?$", line)
        if found:
            level = len(found["lead"]) // 4
            drawn[found["name"]] = parents[level - 1]
            parents[level] = found["name"]
    assert drawn == {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES}


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls is not errors.PartialDeliveryError])
def test_errors_have_a_docstring_and_survive_pickling(cls: type[Exception]):
    assert cls.__doc__
    error = cls("the text")
    again = pickle.loads(pickle.dumps(error))
    assert (cls, str(error)) == (type(again), str(again))


def test_a_partial_delivery_says_how_much_has_arrived():
    error = pickle.loads(pickle.dumps(errors.PartialDeliveryError(5)))
    assert (5, "the batch failed after 5 records") == (error.delivered, str(error))


def test_a_log_call_raises_what_a_caller_expects():
    with pytest.raises(TypeError), tracelet.Experiment("e") as experiment:
        experiment.log_metric(5, 1.0)  # type: ignore[arg-type]  # the mistake is what is tested
