"""The user's own ClearML in the same process: their task, their environment and the end of their program."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.backends.clearml_service import ClearMLService
from tests.backends.test_clearml_offline import python

BACKEND = """
    import json, os, sys, threading
    from tracelet.backends.clearml_backend import ClearMLBackend
    from tracelet.core.records import STATUS_NAME, MetricData, MetricType

    def deliver():
        backend = ClearMLBackend()
        backend.initialize(json.loads(sys.argv[1]))
        backend.start()
        backend.handle_metric(MetricData("ours", 1.0, MetricType.SCALAR, 0, 1.0))
        backend.handle_metric(MetricData(STATUS_NAME, "failed", MetricType.CUSTOM, None, 1.0))
        backend.stop()

    def on_worker():
        worker = threading.Thread(target=deliver)
        worker.start()
        worker.join()
"""


def config(tmp_path: Path, **settings: Any) -> str:
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    facts = {"run_name": "digits", "run_id": "r1", "run_uuid": uuid.uuid4().hex, "run_project": "vision"}
    return json.dumps(
        {**facts, "run_created_s": 1.0, "run_dir": str(tmp_path), "state_dir": str(state_dir), **settings}
    )


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_the_users_own_task_goes_on(tmp_path: Path, mode: str):
    code = (
        BACKEND
        + """
    from clearml import Task
    task = Task.init("theirs", "their task", auto_connect_frameworks=False, auto_connect_arg_parser=False,
                     auto_connect_streams=False, auto_resource_monitoring=False)
    before = dict(os.environ), Task.is_offline()
    task.get_logger().report_scalar("their", "s", 1.0, 0)
    on_worker()
    assert Task.current_task() is task
    assert before == (dict(os.environ), Task.is_offline())
    task.get_logger().report_scalar("their", "s", 2.0, 1)
    task.close()
    print(task.get_offline_mode_folder())
    """
    )
    with ClearMLService() as service:
        settings = service.settings if mode == "online" else {"mode": "offline"}
        variables = {"CLEARML_OFFLINE_MODE": "1", "CLEARML_CACHE_DIR": str(tmp_path / "cache")}
        folder = Path(python(code, config(tmp_path, **settings), folder=tmp_path, **variables).splitlines()[-1])
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        theirs = [event["value"] for line in lines for event in json.loads(line) if event["metric"] == "their"]
        assert [1.0, 2.0] == theirs
        assert '"ours"' not in (folder / "metrics.jsonl").read_text()
        assert ["failed"] * (mode == "online") == [task["status"] for task in service.tasks.values()]


def test_nothing_of_clearml_runs_on(tmp_path: Path):
    """Its import alone adds exit hooks and warning filters; a task would add threads and a subprocess."""
    code = (
        BACKEND
        + """
    import warnings
    filters, environment = list(warnings.filters), dict(os.environ)
    on_worker()
    assert [threading.main_thread()] == threading.enumerate()
    assert (filters, environment) == (list(warnings.filters), dict(os.environ))
    from clearml import Task
    from clearml.backend_api import Session
    print(Task.current_task(), Session._sessions_created, Session.api_version)
    """
    )
    with ClearMLService() as service:
        assert "None 0 2.9" == python(code, config(tmp_path, **service.settings), folder=tmp_path)
        assert "failed" == service.only_task()["status"]
