"""The tracker, as `Accelerator` calls it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState, GradientState
from accelerate.tracking import GeneralTracker

import tracelet
from tests.adapters.hf.programs import HERE, run
from tests.adapters.hf.test_processes import TORCHRUN
from tracelet import MetricType, RunStatus
from tracelet.errors import PluginNotFoundError, UsageError
from tracelet_hf import TraceletTracker


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def accelerator(config: Any = None, **options: Any) -> Accelerator:
    made = Accelerator(cpu=True, log_with="tracelet")
    made.init_trackers("digits", config=config, init_kwargs={"tracelet": {"run_id": "r", **options}})
    return made


def test_a_loop_of_accelerates_is_a_run():
    made = accelerator({"lr": 0.1, "optimizer": {"name": "sgd", "api_key": "s3cret"}}, tags=["team"], name="first")
    for step in range(3):
        made.log({"train": {"loss": 1 / (step + 1)}, "epoch": 0, "note": "hello", "nothing": None}, step=step)
    experiment = made.get_tracker("tracelet", unwrap=True)
    assert experiment is tracelet.get_active_experiment() is made.get_tracker("tracelet").tracker
    made.end_training()
    found = tracelet.load_run("r")
    assert ("first", "digits", {"team": ""}, RunStatus.FINISHED) == (
        found.name,
        found.project,
        found.tags,
        found.status,
    )
    assert [1.0, 0.5, 1 / 3] == found.series("train/loss").values.tolist()
    assert [0, 1, 2] == found.series("epoch").steps.tolist()
    assert [(0, "hello"), (1, "hello"), (2, "hello")] == found.texts("note")
    assert np.isnan(found.series("nothing").values).all()
    assert {"lr": 0.1, "optimizer/name": "sgd", "optimizer/api_key": "<hidden>"} == found.params


def test_a_tracker_of_the_users_own_making_is_taken_as_well():
    tracker = TraceletTracker(experiment=tracelet.Experiment("mine", run_id="mine"))
    made = Accelerator(cpu=True, log_with=[tracker])
    made.init_trackers("ignored", config={"lr": 0.1})
    made.log({"loss": 1.0}, step=0)
    made.end_training()
    assert ({"lr": 0.1}, 1) == (tracelet.load_run("mine").params, len(tracelet.load_run("mine").series("loss")))


def test_the_constructor_touches_no_state_and_writes_nothing():
    tracker = TraceletTracker("digits")
    assert isinstance(tracker, GeneralTracker)
    assert ("tracelet", False, True) == (tracker.name, tracker.requires_logging_directory, tracker.main_process_only)
    assert {} == PartialState._shared_state
    assert [] == list(Path().iterdir())


def test_an_unknown_backend_raises_before_the_loop():
    with pytest.raises(PluginNotFoundError, match="mlfow"):
        accelerator(backend="mlfow")


def test_media_tables_figures_and_files_are_recorded(tmp_path: Path):
    import matplotlib.pyplot as plt

    picture = np.zeros((4, 4, 3), np.uint8)
    Path("files/inner").mkdir(parents=True)
    Path("files/a.txt").write_text("a")
    Path("files/inner/b.txt").write_text("b")
    figure, _ = plt.subplots()
    tracker = accelerator().get_tracker("tracelet")
    tracker.log_images({"one": picture, "list": [picture, picture], "batch": np.stack([picture] * 2)}, step=3)
    tracker.log_table("rows", columns=["x", "y"], data=[[1, 2]], step=3)
    tracker.log_table("frame", dataframe=pd.DataFrame({"x": [1]}))
    tracker.log_figure("plot", figure, step=3)
    tracker.log_artifact("files/a.txt", type="text")
    tracker.log_artifacts("files", "all")
    plt.close(figure)
    tracker.finish()
    found = tracelet.load_run("r")
    images = {record.name: record.iteration for record in found.records(MetricType.IMAGE)}
    assert dict.fromkeys(["one", "list/0", "list/1", "batch/0", "batch/1"], 3) == images
    rows, frame = found.records(MetricType.TABLE)
    assert ({"columns": ["x", "y"], "rows": [[1, 2]]}, [[1]]) == (rows.value, frame.value["rows"])
    assert ["plot"] == [record.name for record in found.records(MetricType.FIGURE)]
    kept = {record.name: Path(record.value) for record in found.records(MetricType.ARTIFACT)}
    assert {"a.txt", "all/a.txt", "all/inner"} == set(kept)
    assert "b" == (kept["all/inner"] / "b.txt").read_text()


def test_a_directory_that_is_not_there_raises():
    with pytest.raises(UsageError, match="there is no directory 'nowhere'"):
        accelerator().get_tracker("tracelet").log_artifacts("nowhere")


def test_of_two_processes_the_first_records():
    run([*TORCHRUN, HERE / "accelerated.py"])
    for run_id in ("ddp", "own"):
        found = tracelet.load_run(run_id)
        assert (RunStatus.FINISHED, {"lr": 0.1}) == (found.status, found.params)
        assert {"rank": [0.0], "loss": [1.0]} == {name: found.series(name).values.tolist() for name in found.names()}
        assert 1 == len(list(found.path.glob("*.log")))


def test_a_loop_that_fails_is_a_run_that_failed():
    code = "from accelerate import Accelerator; import tracelet_hf; a = Accelerator(cpu=True, log_with='tracelet'); "
    code += "a.init_trackers('p', init_kwargs={'tracelet': {'run_id': 'r'}}); a.log({'loss': 1.0}, step=0); 1 / 0"
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run(["-c", code])
    found = tracelet.load_run("r")
    assert (RunStatus.FAILED, 1) == (found.status, len(found.series("loss")))
