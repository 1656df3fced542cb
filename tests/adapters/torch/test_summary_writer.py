"""`SummaryWriter`: the interface of TensorBoard's, what its own files have, and what each method leaves in a run."""

from __future__ import annotations

import inspect
import logging
import os
import pickle
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils import tensorboard
from torch.utils.tensorboard.summary import compute_curve, scalar

import tracelet
from tracelet import Experiment, MetricType, RunStatus
from tracelet.errors import UsageError
from tracelet.frameworks.torch_framework import SummaryWriter

SCRIPT = Path(__file__).parents[3] / "docs" / "examples" / "tensorboard_script.py"
OURS, THEIRS = "from tracelet.frameworks.torch_framework import", "from torch.utils.tensorboard import"


def written(**options: Any) -> tuple[SummaryWriter, Experiment]:
    writer = SummaryWriter(**options)
    return writer, writer.experiment


def only(experiment: Experiment, *types: MetricType) -> Any:
    (record,) = tracelet.Run(experiment.run_dir).records(*types)
    return record


def pixels(record: Any) -> np.ndarray:
    with Image.open(record.value) as image:
        return np.asarray(image)


# -- beside TensorBoard ------------------------------------------------------------------------------------------------

PUBLIC = [
    name for name, _ in inspect.getmembers(tensorboard.SummaryWriter, callable) if name[0] != "_" or name == "__init__"
]


@pytest.mark.parametrize("name", PUBLIC)
def test_each_method_takes_what_tensorboards_takes(name: str):
    """A new method or parameter of a later PyTorch fails here."""
    theirs, ours = (
        [
            (parameter.name, parameter.default, parameter.kind)
            for parameter in inspect.signature(getattr(cls, name)).parameters.values()
            if cls is tensorboard.SummaryWriter or parameter.kind is not parameter.KEYWORD_ONLY
        ]
        for cls in (tensorboard.SummaryWriter, SummaryWriter)
    )
    assert theirs == ours


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[tracelet.Run, Path]:
    """The same script with one import line and with the other: a run, and a directory of TensorBoard."""
    directory = tmp_path_factory.mktemp("both")
    theirs = directory / "theirs.py"
    text = SCRIPT.read_text()
    assert 1 == text.count(OURS)
    theirs.write_text(text.replace(OURS, THEIRS))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.setenv("TRACELET_COLLECTORS", "")
        for program, log_dir in ((SCRIPT, "runs/ours"), (theirs, "runs/theirs")):
            patch.setattr(sys, "argv", [os.fspath(program), log_dir])
            runpy.run_path(os.fspath(program), run_name="__main__")
    (found,) = directory.glob("tracelet_runs/*/*/run.json")
    return tracelet.Run(found.parent), directory / "runs" / "theirs"


def events(directory: Path) -> EventAccumulator:
    return EventAccumulator(os.fspath(directory), size_guidance={"scalars": 0, "histograms": 0}).Reload()


def test_the_same_script_gives_the_same_scalars(both: tuple[tracelet.Run, Path]):
    run, theirs = both
    (trial,) = [path for path in theirs.iterdir() if path.name[0].isdigit()]  # Of `add_hparams`.
    sources = {name: (theirs, name) for name in ("loss/train", "accuracy/train")} | {
        "probability/mean": (theirs / "probability_mean", "probability"),
        "probability/least": (theirs / "probability_least", "probability"),
        "final/accuracy": (trial, "final/accuracy"),
    }
    assert set(sources) == set(run.names())
    for name, (directory, tag) in sources.items():
        series, expected = run.series(name), events(directory).Scalars(tag)
        assert series.steps.tolist() == [event.step for event in expected]
        assert series.values.astype(np.float32).tolist() == [event.value for event in expected]
        if name == "accuracy/train":  # The script says when.
            assert series.times_s == pytest.approx([event.wall_time for event in expected], abs=1e-6, rel=0)
        else:
            assert (abs(series.times_s - [event.wall_time for event in expected]) < 300).all()


def test_the_same_script_gives_the_same_of_everything_else(both: tuple[tracelet.Run, Path]):
    run, theirs = both
    found = events(theirs)
    histograms = {record.iteration: record.value for record in run.records(MetricType.HISTOGRAM)}
    for event in found.Histograms("weights/first"):
        mine = histograms.pop(event.step)
        assert (event.histogram_value.num, 0) == (sum(mine["counts"]), mine["nan"])
        assert (event.histogram_value.min, event.histogram_value.max) == pytest.approx(
            (mine["edges"][0], mine["edges"][-1])
        )
    assert {} == histograms
    curves = {record.iteration: np.array(record.value["rows"]) for record in run.records(MetricType.TABLE)}
    for event in found.Tensors("zero"):
        assert curves[event.step][:, 1:].T == pytest.approx(
            np.reshape(event.tensor_proto.float_val, (6, 127)), abs=1e-5
        )
    (event,) = found.Images("digits")
    (image,) = run.records(MetricType.IMAGE)
    assert (event.step, event.width, event.height) == (image.iteration, *pixels(image).shape[::-1])
    assert [(0, "trained on the **whole** set")] == run.texts("note")
    assert {"learning_rate": 0.01, "epochs": 30} == run.params


def test_a_curve_of_precision_and_recall_has_tensorboards_numbers():
    generator = np.random.default_rng(0)
    labels, predictions = generator.integers(0, 2, 500), generator.random(500)
    predictions[:2], weights = (0.0, 1.0), generator.random(500)
    writer, experiment = written()
    writer.add_pr_curve("plain", labels, predictions, 1, num_thresholds=20)
    writer.add_pr_curve("weighted", torch.tensor(labels), torch.tensor(predictions), 2, 300, torch.tensor(weights))
    raw = compute_curve(labels, predictions, 20)
    writer.add_pr_curve_raw("raw", *raw, global_step=3)
    writer.close()
    found = {record.name: record for record in tracelet.Run(experiment.run_dir).records(MetricType.TABLE)}
    assert {"plain": 1, "weighted": 2, "raw": 3} == {name: record.iteration for name, record in found.items()}
    for name, expected in {
        "plain": raw,
        "raw": raw,
        "weighted": compute_curve(labels, predictions, 127, weights),
    }.items():
        rows = np.array(found[name].value["rows"])
        assert rows[:, 1:].T == pytest.approx(expected)
        assert (0.0, 1.0) == (rows[0, 0], rows[-1, 0])


# -- what is recorded --------------------------------------------------------------------------------------------------


def test_scalars_of_every_kind():
    writer, experiment = written()
    begin_s = time.time()
    for value in (1, 0.1, np.float32(2.5), np.array([3.0]), torch.tensor(4.0, requires_grad=True), float("nan")):
        writer.add_scalar("kinds", value, global_step=torch.tensor(7))
    writer.add_scalar("double", 0.1, np.int64(1), walltime=5.25, new_style=True, double_precision=True)
    writer.add_scalar("no step", 1.0)
    writer.add_scalar("no step", 2.0)
    writer.add_scalars("group/a", {"x": 1, "y": torch.tensor(2)}, 3, walltime=6.5)
    writer.close()
    run = tracelet.Run(experiment.run_dir)
    assert [7] * 6 == run.series("kinds").steps.tolist()
    assert [1, 0.1, 2.5, 3, 4] == run.series("kinds").values.tolist()[:5]
    assert np.isnan(run.series("kinds").values[5])
    assert (run.series("kinds").times_s >= begin_s).all()
    series = run.series("double")
    assert (1, 0.1, 5.25) == (series.steps[0], series.values[0], series.times_s[0])
    assert [0, 0] == run.series("no step").steps.tolist()
    assert (3, 2.0, 6.5) == tuple(getattr(run.series("group/a/y"), part)[0] for part in ("steps", "values", "times_s"))


@pytest.mark.parametrize("dataformats", ["CHW", "HWC", "WHC", "NCHW", "NHWC", "hwc"])
def test_an_image_in_each_layout(dataformats: str):
    image = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(4, 5, 3)  # (H, W, C)
    letters = dataformats.upper()
    given = image[None] if "N" in letters else image
    there = "NHWC" if "N" in letters else "HWC"
    given = given.transpose([there.index(letter) for letter in letters])
    writer, experiment = written()
    writer.add_image("image", torch.tensor(given), 3, 7.5, dataformats)
    writer.close()
    record = only(experiment, MetricType.IMAGE)
    assert (3, 7.5, 5, 4) == (record.iteration, record.timestamp, record.metadata["width"], record.metadata["height"])
    assert (image == pixels(record)).all()


def test_grey_images_and_several_of_them():
    writer, experiment = written()
    writer.add_image("grey", torch.tensor([[0.0, 0.5, 1.0]]), dataformats="HW")
    writer.add_images("many", torch.arange(10, dtype=torch.uint8).reshape(10, 1, 1, 1).expand(10, 1, 2, 2))
    writer.close()
    grey, many = tracelet.Run(experiment.run_dir).records(MetricType.IMAGE)
    assert [[0, 128, 255]] == pixels(grey).tolist()
    assert (4, 16) == pixels(many).shape
    assert [0, 1, 7, 8, 9, 0] == [pixels(many)[place] for place in ((0, 0), (0, 2), (1, 15), (2, 0), (2, 2), (3, 4))]


def test_an_image_with_boxes():
    writer, experiment = written()
    boxes = torch.tensor([[2, 3, 20, 30], [60, 5, 40, 15]])
    writer.add_image_with_boxes("seen", torch.zeros(3, 50, 70), boxes, 1, rescale=2, labels=["cat", "dog"])
    writer.close()
    record = only(experiment, MetricType.IMAGE)
    image = pixels(record)
    assert (100, 140, 3) == image.shape
    assert image[20:30, 4, 0].min() > 100 > image[20:30, 20, 0].max()  # The left side of the first box is red.
    assert (boxes.tolist(), ["cat", "dog"]) == (record.metadata["boxes"], record.metadata["labels"])


def test_figures_are_closed_unless_they_are_to_stay():
    writer, experiment = written()
    figures = [plt.figure() for _ in range(4)]
    writer.add_figure("one", figures[0], 1)
    writer.add_figure("list", figures[1:3], 2, walltime=8.5)
    writer.add_figure("open", figures[3], 3, close=False)
    assert [figures[3].number] == plt.get_fignums()
    plt.close(figures[3])
    writer.close()
    found = tracelet.Run(experiment.run_dir).records(MetricType.FIGURE)
    assert [("one", 1), ("list/0", 2), ("list/1", 2), ("open", 3)] == [(one.name, one.iteration) for one in found]
    assert [8.5, 8.5] == [one.timestamp for one in found[1:3]]
    assert all(pixels(one).size for one in found)


def test_films_sounds_and_meshes():
    writer, experiment = written()
    writer.add_video("film", torch.rand(2, 3, 3, 4, 5), 1, fps=10)
    writer.add_audio("sound", torch.sin(torch.arange(0, 100))[None], 2, sample_rate=8000, walltime=3.5)
    writer.add_mesh(
        "mesh", torch.rand(1, 4, 3), faces=torch.ones(1, 2, 3).int(), config_dict={"lights": 1}, global_step=3
    )
    writer.add_tensor("tensor", torch.tensor([[1, 2]]), 4)
    writer.add_tensor("one", torch.tensor(1.5), 5)
    writer.close()
    run = tracelet.Run(experiment.run_dir)
    (film,), (sound,) = run.records(MetricType.VIDEO), run.records(MetricType.AUDIO)
    assert {"width": 10, "height": 4, "frames": 3, "frames_per_s": 10} == film.metadata
    assert (8000, 3.5) == (sound.metadata["sample_rate_hz"], sound.timestamp)
    tensors = {record.name: record for record in run.records(MetricType.TENSOR)}
    assert {"mesh/vertices": 3, "mesh/faces": 3, "tensor": 4, "one": 5} == {k: v.iteration for k, v in tensors.items()}
    assert {"lights": 1} == tensors["mesh/faces"].metadata["config"]
    assert [[1, 2]] == np.load(tensors["tensor"].value).tolist()
    assert 0o600 == os.stat(tensors["tensor"].value).st_mode & 0o777


def test_histograms_of_every_kind():
    values = np.array([0.0, 1, 2, 3, 3, 9])
    writer, experiment = written()
    writer.add_histogram("default", torch.tensor(values), 1, walltime=4.5)
    writer.add_histogram("auto", values, 2, bins="auto")
    writer.add_histogram("edges", np.append(values, np.nan), 3, bins=[0, 2, 4, 10])
    writer.add_histogram("few", values, 4, bins=9, max_bins=4)
    writer.add_histogram_raw("raw", 0.5, 3, 6, 9.0, 20.0, [1.0, 2.0, 1.7e308], [1, 2, 3], 5)
    writer.close()
    found = {record.name: record for record in tracelet.Run(experiment.run_dir).records(MetricType.HISTOGRAM)}
    assert [1, 2, 3, 4, 5] == [record.iteration for record in found.values()]
    value = {name: record.value for name, record in found.items()}
    assert (64, 6.0, 4.5) == (
        len(value["default"]["counts"]),
        sum(value["default"]["counts"]),
        found["default"].timestamp,
    )
    counts, edges = np.histogram(values, "auto")
    assert (counts.tolist(), edges.tolist()) == (value["auto"]["counts"], value["auto"]["edges"])
    assert {"edges": [0, 2, 4, 10], "counts": [2, 3, 1], "nan": 1, "inf": 0} == value["edges"]
    assert {"edges": [0, 3, 6, 9], "counts": [3, 2, 1]}.items() <= value["few"].items()
    assert {"edges": [0.5, 1, 2, 3], "counts": [1, 2, 3]}.items() <= value["raw"].items()
    assert {"min": 0.5, "num": 6, "sum_squares": 20.0}.items() <= found["raw"].metadata.items()
    with pytest.raises(UsageError, match="2 limits do not fit 1 counts"):
        writer.add_histogram_raw("raw", 0, 1, 1, 1, 1, [1, 2], [1])


def test_an_embedding_is_a_table_and_a_large_one_a_tensor():
    writer, experiment = written()
    writer.add_embedding(torch.eye(2), ["a", "b"], torch.zeros(2, 3, 4, 4), 1, "small")
    writer.add_embedding(np.eye(2), [["a", 1], ["b", 2]], tag="headed", metadata_header=["name", "id"])
    writer.add_embedding(torch.zeros(2000, 100), list(range(2000)), tag="large")
    writer.close()
    run = tracelet.Run(experiment.run_dir)
    tables = {record.name: record.value for record in run.records(MetricType.TABLE)}
    assert {"columns": ["label", "x0", "x1"], "rows": [["a", 1, 0], ["b", 0, 1]]} == tables["small"]
    assert {"columns": ["name", "id", "x0", "x1"], "rows": [["a", 1, 1, 0], ["b", 2, 0, 1]]} == tables["headed"]
    assert 2000 == len(tables["large/metadata"]["rows"])
    assert ("large", (2000, 100)) == ((tensor := only(experiment, MetricType.TENSOR)).name, np.load(tensor.value).shape)
    assert "small/images" == only(experiment, MetricType.IMAGE).name


def test_graphs_layouts_and_files():
    Path("model.onnx").write_bytes(b"onnx")
    writer, experiment = written()
    model = torch.nn.Linear(2, 1)
    writer.add_graph(model, torch.zeros(1, 2))
    writer.add_onnx_graph("model.onnx")
    writer.add_custom_scalars_multilinechart(["a", "b"], title="both")
    writer.add_custom_scalars_marginchart(["a", "b", "c"], "margins")
    writer.close()
    run = tracelet.Run(experiment.run_dir)
    assert [(None, str(model))] == run.texts("model/summary")
    assert b"onnx" == Path(only(experiment, MetricType.ARTIFACT).value).read_bytes()
    layouts = [record.value for record in run.records(MetricType.CUSTOM) if record.name == "custom_scalars"]
    assert [
        {"default": {"both": ["Multiline", ["a", "b"]]}},
        {"margins": {"untitled": ["Margin", ["a", "b", "c"]]}},
    ] == layouts


def test_the_first_hyper_parameters_are_this_runs_and_others_are_trials_of_their_own():
    writer = SummaryWriter("runs/search")
    for rate in (0.1, 0.2, 0.3):
        name = None if rate == 0.1 else f"rate {rate}"
        writer.add_hparams({"rate": rate, "size": 3}, {"accuracy": rate * 2}, {"size": [3, 4]}, name, 9)
    writer.close()
    runs = {run.name: run for run in (tracelet.Run(path.parent) for path in Path("tracelet_runs").glob("*/*/run.json"))}
    assert {"runs/search": 0.1, "rate 0.2": 0.2, "rate 0.3": 0.3} == {k: run.params["rate"] for k, run in runs.items()}
    for run in runs.values():
        series = run.series("accuracy")
        assert ([9], [run.params["rate"] * 2]) == (series.steps.tolist(), series.values.tolist())
        assert RunStatus.FINISHED is run.status
    with pytest.raises(UsageError, match="two dicts"):
        writer.add_hparams([], {})


def test_what_can_not_be_kept_in_its_form_is_recorded_in_words(caplog):
    writer, experiment = written()
    with caplog.at_level(logging.WARNING, "tracelet"):
        for _ in range(2):
            writer.add_image("image", torch.zeros(3, 4, 5), 1, dataformats="HW")
        writer.add_histogram("histogram", ["no", "numbers"], 2)
        writer.add_pr_curve("curve", [0, 1], [0.5], 3)
        writer.add_embedding(None, tag="embedding")
        writer.add_embedding(torch.eye(3), ["one"], tag="labels")
        writer.add_video("film", torch.zeros(3), 4)
    writer.close()
    run = tracelet.Run(experiment.run_dir)
    failed = {record.name: record.metadata["failed"] for record in run.records(MetricType.TEXT)}
    kinds = {"histogram": "histogram", "curve": "table", "embedding": "table", "labels": "table", "film": "video"}
    assert {"image": "image", **kinds} == failed
    assert 6 == len(caplog.records)


# -- life cycle --------------------------------------------------------------------------------------------------------


def test_the_same_directory_is_the_same_run():
    for step in range(2):
        with SummaryWriter("runs/a") as writer:
            writer.add_scalar("loss", step, step)
            assert os.path.isdir(writer.log_dir)
            assert "runs/a" == writer.log_dir == writer.get_logdir() == writer.file_writer.get_logdir()
    Path("elsewhere").mkdir()
    os.chdir("elsewhere")
    with SummaryWriter("runs/a") as other:
        pass
    assert other.experiment.run_id != writer.experiment.run_id
    run = tracelet.Run(writer.experiment.run_dir)
    assert ("runs/a", [0, 1]) == (run.name, run.series("loss").steps.tolist())


def test_two_writers_of_a_directory_write_into_one_run():
    writers = [SummaryWriter("runs/a") for _ in range(2)]
    for step, writer in enumerate(writers):
        writer.add_scalar("loss", step, step)
    assert 1 == len({id(writer.experiment) for writer in writers})
    writers[0].close()
    writers[1].add_scalar("loss", 2, 2)
    writers[1].close()
    assert [0, 1, 2] == tracelet.Run(writers[1].experiment.run_dir).series("loss").steps.tolist()


def test_without_a_directory_each_writer_is_a_run_whose_directory_it_has():
    first, second = SummaryWriter(comment="_rate_0.1"), SummaryWriter()
    assert first.experiment.run_id != second.experiment.run_id
    assert first.log_dir == os.fspath(first.experiment.run_dir)
    assert first.experiment.name.endswith("_rate_0.1")
    assert not Path("runs").exists()


def test_a_run_that_is_purged_holds_what_came_before():
    for values in ((0.0, 1.0, 2.0, 3.0), (20.0, 30.0)):
        with SummaryWriter("runs/a", purge_step=2 if values[0] else None) as writer:
            for step, value in enumerate(values, 2 if values[0] else 0):
                writer.add_scalar("loss", value, step)
    run = tracelet.Run(writer.experiment.run_dir)
    assert [0.0, 1.0, 2.0, 3.0, 20.0, 30.0] == run.series("loss").values.tolist()
    assert [0.0, 1.0, 20.0, 30.0] == run.live("loss").values.tolist()


def test_an_exception_in_the_block_makes_the_run_failed_and_close_makes_it_finished():
    with pytest.raises(ZeroDivisionError), SummaryWriter("runs/a") as writer:
        1 / 0  # noqa: B018  It is there to fail.
    run = tracelet.Run(writer._experiment.run_dir)
    assert RunStatus.FAILED is run.status
    assert "ZeroDivisionError" in run.error
    writer.add_scalar("loss", 1.0)
    writer.close()
    writer.close()
    assert (None, None) == (writer.file_writer, writer.all_writers)
    assert RunStatus.FINISHED is tracelet.Run(writer._experiment.run_dir).status


def test_an_experiment_of_the_users_own_stays_theirs_to_stop():
    with Experiment("mine") as experiment:
        with SummaryWriter(experiment=experiment) as writer:
            writer.add_scalar("loss", 1.0, 4)
        writer.close()
        experiment.log_metric("loss", 2.0, 5)
    assert [4, 5] == tracelet.Run(experiment.run_dir).series("loss").steps.tolist()
    assert 1 == len(list(Path("tracelet_runs").glob("*/*")))


def test_summaries_that_a_script_gives_to_the_file_writer(caplog):
    writer, experiment = written(log_dir="runs/a")
    assert [writer.log_dir] == list(writer.all_writers)
    writer.file_writer.add_summary(scalar("loss", 1.5), 3, 4.5)
    writer._get_file_writer().add_summary(scalar("new", torch.tensor(1.0), new_style=True), 3)
    for file_writer in writer.all_writers.values():
        file_writer.flush()
        file_writer.close()
    series = tracelet.Run(experiment.run_dir).series("loss")
    assert (3, 1.5, 4.5) == (series.steps[0], series.values[0], series.times_s[0])
    assert ["a summary's tensor, 'new', is not recorded"] == [record.getMessage() for record in caplog.records]


def test_a_writer_can_be_pickled_and_a_copy_writes_into_the_same_run():
    writer, experiment = written(log_dir="runs/a")
    pickle.loads(pickle.dumps(writer)).add_scalar("loss", 1.0, 1)
    writer.flush()
    writer.close()
    assert [1] == tracelet.Run(experiment.run_dir).series("loss").steps.tolist()
