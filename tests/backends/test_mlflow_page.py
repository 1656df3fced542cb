"""The page on MLflow is true: its snippet runs as it stands, and its table has all settings."""

from __future__ import annotations

import re
from pathlib import Path

import mlflow
import pytest

from tests.backends.mlflow_support import QUIET
from tests.docs.test_pages import ROOT, snippets
from tracelet.backends._mlflow.settings import MLflowSettings

PAGE = "docs/backends/mlflow.md"
pytestmark = QUIET


def test_the_snippet_of_the_page_makes_a_run_that_mlflow_ui_shows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for snippet in snippets(PAGE):
        exec(compile(snippet, PAGE, "exec"), {})  # noqa: S102  Our own page.
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("vision")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert ("digits", "FINISHED", {"lr": "0.1"}) == (run.info.run_name, run.info.status, run.data.params)
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 100


def test_the_page_tells_each_setting_and_its_default():
    section = (ROOT / PAGE).read_text().partition("## Settings")[2].partition("##")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE))
    assert rows.keys() == MLflowSettings.model_fields.keys()
    assert rows["timeout_s"] == f"`{MLflowSettings().timeout_s}`"
