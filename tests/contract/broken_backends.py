"""Backends with one fault each, under their suite. `test_suites.py` runs this file and looks at what fails.

Each test class says in `caught_by` which tests must fail; with an empty one, all must pass.
"""

from __future__ import annotations

import contextlib
import json  # noqa: F401  stands for a heavy SDK
import os
import threading
from dataclasses import replace

import pytest

from tracelet.core.changes import Change, ChangeKind
from tracelet.core.plugins import BackendPlugin, PluginMetadata, PluginType
from tracelet.core.records import MetricType
from tracelet.errors import RejectedError
from tracelet.testing import BackendContract


class Kept(BackendPlugin):
    """A backend without a fault."""

    capabilities = frozenset({"timestamps", "idempotent"})
    dependencies: tuple[str, ...] = ()

    def __init__(self):
        self.rows = {}
        self.client = None

    @classmethod
    def get_metadata(cls):
        return PluginMetadata(
            "kept", "1", PluginType.BACKEND, dependencies=cls.dependencies, capabilities=cls.capabilities
        )

    def initialize(self, config):
        self.client = threading.get_ident()

    def start(self):
        self._active = True

    def stop(self):
        self._active = False

    def get_status(self):
        return {"active": self._active}

    def handle_metric(self, metric):
        if metric.type in (MetricType.SCALAR, MetricType.SYSTEM):
            row = self.row(metric)
            self.rows.setdefault(self.key(row), row)

    def row(self, metric):
        return (metric.name, metric.iteration, metric.value, metric.timestamp)

    def key(self, row):
        return repr(row)

    def again(self):
        return self


class BackendSuite(BackendContract):
    faulty: type[Kept]

    @pytest.fixture
    def backend(self):
        return self.faulty()

    @pytest.fixture
    def restarted(self, backend):
        return backend.again()

    @pytest.fixture
    def stored(self, backend):
        return lambda: list(backend.rows.values())


class TestGood(BackendSuite):
    faulty = Kept
    caught_by = frozenset()


class LosesStepZero(Kept):
    def row(self, metric):
        return (metric.name, metric.iteration or None, metric.value, metric.timestamp)


class TestLosesStepZero(BackendSuite):
    faulty = LosesStepZero
    caught_by = frozenset({"test_step_zero_is_a_step"})


class UploadsOnItsOwnThreadOnly(Kept):
    uploads_aside = True

    def handle_artifact(self, metric):
        if threading.get_ident() != self.client:
            raise RuntimeError("not on this thread")


class TestUploadsOnItsOwnThreadOnly(BackendSuite):
    faulty = UploadsOnItsOwnThreadOnly
    caught_by = frozenset({"test_artifact_and_metrics_are_taken_at_once"})


class NanBecomesZero(Kept):
    def row(self, metric):
        value = metric.value if metric.value == metric.value else 0.0
        return (metric.name, metric.iteration, value, metric.timestamp)


class TestNanBecomesZero(BackendSuite):
    faulty = NanBecomesZero
    caught_by = frozenset({"test_value_is_stored_exactly_or_as_the_plan_says"})


class PlansNothing(NanBecomesZero):
    def plan(self, metric):
        return [Change(ChangeKind.CHANGED, "")]


class TestPlansNothing(BackendSuite):
    faulty = PlansNothing
    caught_by = frozenset({"test_plan_answers_for_every_type_without_a_connection"})


class ForgetsTheRun(Kept):
    def again(self):
        return type(self)()


class TestForgetsTheRun(BackendSuite):
    faulty = ForgetsTheRun
    caught_by = frozenset({"test_a_run_that_is_started_again_goes_on_in_the_same_place"})


class SetsVariables(Kept):
    def start(self):
        super().start()
        os.environ["KEPT_RUN"] = "1"

    def stop(self):
        os.environ.pop("KEPT_RUN", None)


class TestSetsVariables(BackendSuite):
    faulty = SetsVariables
    caught_by = frozenset({"test_the_process_is_left_as_it_was"})


class DropsOldSteps(Kept):
    newest = -1

    def handle_metric(self, metric):
        if metric.iteration is not None and metric.iteration >= self.newest:
            super().handle_metric(metric)
            self.newest = metric.iteration


class TestDropsOldSteps(BackendSuite):
    faulty = DropsOldSteps
    caught_by = frozenset({"test_negative_and_unordered_steps_are_kept"})


class MergesNames(Kept):
    def handle_metric(self, metric):
        super().handle_metric(replace(metric, name=metric.name.replace(" ", "_")))


class TestMergesNames(BackendSuite):
    faulty = MergesNames
    caught_by = frozenset({"test_names_are_kept_apart_or_rejected"})


class UsesNow(Kept):
    def row(self, metric):
        return (metric.name, metric.iteration, metric.value, 1.0)


class TestUsesNow(BackendSuite):
    faulty = UsesNow
    caught_by = frozenset({"test_timestamp_is_kept"})


class StoresTwice(Kept):
    def key(self, row):
        return len(self.rows)


class TestStoresTwice(BackendSuite):
    faulty = StoresTwice
    caught_by = frozenset({"test_batch_that_comes_twice_loses_nothing"})


class RefusesUnknownTypes(Kept):
    def handle_metric(self, metric):
        if metric.type is MetricType.VIDEO:
            raise RejectedError("no videos here")
        super().handle_metric(metric)


class TestRefusesUnknownTypes(BackendSuite):
    faulty = RefusesUnknownTypes
    caught_by = frozenset({"test_every_type_is_stored_or_ignored"})


class StopsOnce(Kept):
    def stop(self):
        self.client += 0  # There is no client without `initialize`, and after the first stop.
        self.client = None


class TestStopsOnce(BackendSuite):
    faulty = StopsOnce
    caught_by = frozenset({"test_stop_twice_is_stop", "test_stop_without_start_does_nothing"})


class ChangesConfig(Kept):
    def initialize(self, config):
        config.pop("run_name", None)


class TestChangesConfig(BackendSuite):
    faulty = ChangesConfig
    caught_by = frozenset({"test_configuration_is_left_as_it_is"})


class ImportsItsSdk(Kept):
    dependencies = ("json",)


class TestImportsItsSdk(BackendSuite):
    faulty = ImportsItsSdk
    caught_by = frozenset({"test_importing_the_module_imports_no_dependency"})


class HasBadMetadata(Kept):
    dependencies = ("a b c",)

    @classmethod
    def get_metadata(cls):
        return replace(super().get_metadata(), name="Two Words", type=PluginType.COLLECTOR)


class TestHasBadMetadata(BackendSuite):
    faulty = HasBadMetadata
    caught_by = frozenset(
        {
            "test_metadata_says_who_it_is",
            "test_metadata_is_told_by_the_class",
            "test_dependencies_are_requirements",
        }
    )


class IsTouchy(Kept):
    """Refuses what is unusual, and connects only once."""

    def __init__(self):
        super().__init__()
        self.initialized = 0

    @classmethod
    def validate_config(cls, config):
        raise ValueError("no settings, no backend")

    def initialize(self, config):
        self.initialized += 1
        if self.initialized > 1:
            raise RuntimeError("connected already")

    def get_status(self):
        if self._active:
            raise RuntimeError("not from this thread")
        return {}

    def get_url(self):
        return 3

    def handle_batch(self, metrics):
        first = metrics[0]
        if first.type in (MetricType.TEXT, MetricType.CUSTOM, MetricType.PARAMETER):
            raise TypeError(first.value)
        super().handle_batch(metrics)

    def row(self, metric):
        if metric.type is MetricType.SYSTEM:
            raise TypeError("no system metrics")
        return super().row(metric)


class TestIsTouchy(BackendSuite):
    faulty = IsTouchy
    caught_by = frozenset(
        {
            "test_configuration_is_accepted",
            "test_initialize_can_be_called_again",
            "test_status_is_readable_in_every_state",
            "test_url_is_a_text_or_none_in_every_state",
            "test_empty_batch_is_taken",
            "test_text_is_taken",
            "test_tags_and_status_are_taken",
            "test_parameter_of_each_type_is_taken",
            "test_parameter_that_is_logged_again_is_no_error",
            "test_unknown_custom_record_is_ignored",
            "test_system_metrics_are_stored_as_metrics",
        }
    )


class KeepsOneValueAStep(Kept):
    def key(self, row):
        return row[:2]


class TestKeepsOneValueAStep(BackendSuite):
    faulty = KeepsOneValueAStep
    caught_by = frozenset({"test_same_step_twice_is_kept_twice"})


class ReversesOrder(Kept):
    def handle_batch(self, metrics):
        super().handle_batch(metrics[::-1])

    def handle_metric(self, metric):
        super().handle_metric(replace(metric, iteration=0 if metric.iteration == 7 else metric.iteration))


class TestReversesOrder(BackendSuite):
    faulty = ReversesOrder
    caught_by = frozenset({"test_scalars_keep_name_step_value_and_order", "test_one_record_is_taken_alone"})


class BlamesTheRecords(Kept):
    is_down = False

    def handle_metric(self, metric):
        if self.is_down:
            raise ValueError("the service answered with an error page")
        super().handle_metric(metric)


class TestBlamesTheRecords(BackendSuite):
    faulty = BlamesTheRecords
    caught_by = frozenset({"test_outage_is_no_fault_of_the_records"})

    @pytest.fixture
    def outage(self, backend):
        @contextlib.contextmanager
        def unreachable():
            backend.is_down = True
            yield
            backend.is_down = False

        return unreachable
