"""Runs that the real libraries wrote, each once a test run: what the importers read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LOSSES = [1.0, 0.5, float("nan"), 0.25]

TENSORBOARD = """
import numpy as np, torch
from torch.utils.tensorboard import SummaryWriter
writer = SummaryWriter("run")
for step, value in enumerate(LOSSES):
    writer.add_scalar("train/loss", value, step)
    writer.add_scalar("new", value, step, new_style=True)
writer.add_histogram("weights", np.array([1.0, 2.0, 2.5, 4.0]), 1)
writer.add_image("picture", np.zeros((3, 4, 4), "uint8"), 2)
writer.add_text("note", "hello", 3)
writer.add_audio("tone", torch.zeros(1, 100), 3)
writer.add_pr_curve("curve", np.array([1, 0]), np.array([0.9, 0.1]), 0)
writer.close()
inner = SummaryWriter("run/nested")
inner.add_hparams({"lr": 0.1, "optimizer": "adam", "nesterov": True}, {"accuracy": 0.5}, run_name=".")
inner.close()
"""

WANDB = """
import numpy as np, wandb
run = wandb.init(mode="offline", project="p", name="n", config={"lr": 0.1, "m": {"d": 3}}, tags=["t1"], notes="about")
for value in LOSSES:
    run.log({"train/loss": value, "word": "w", "inner": {"x": 1}})
run.log({"picture": wandb.Image(np.zeros((4, 4, 3), "uint8")), "h": wandb.Histogram(np.arange(9.0)),
         "t": wandb.Table(columns=["a"], data=[[1]])})
artifact = wandb.Artifact("data", "dataset")
open("f.txt", "w").write("hello")
artifact.add_file("f.txt")
run.log_artifact(artifact)
run.summary["best"] = 3
run.finish()
"""

MLFLOW = """
import mlflow
mlflow.set_tracking_uri("sqlite:///m.db")
mlflow.set_experiment("p")
for name, status in (("n", "FINISHED"), ("broken", "FAILED")):
    run = mlflow.start_run(run_name=name, description="about")
    mlflow.log_params({"lr": 0.1})
    mlflow.set_tag("k", "v")
    for step, value in enumerate(LOSSES):
        mlflow.log_metric("train/loss", value, step=step)
    mlflow.log_text("hello", "d/f.txt")
    mlflow.end_run(status)
"""

NEPTUNE = """
import warnings
warnings.simplefilter("ignore")
import neptune
run = neptune.init_run(mode="offline", name="n", tags=["t1"], description="about", capture_hardware_metrics=False)
run["params"] = {"lr": 0.1, "n": {"k": 2}}
for step, value in enumerate([1.0, 0.5, 0.25]):
    run["train/loss"].append(value, step=step, timestamp=1700000000 + step)
run["log"].append("line")
open("f.txt", "w").write("hello")
run["file"].upload("f.txt")
run.stop()
"""

CLEARML = """
import os
os.environ["CLEARML_CACHE_DIR"] = os.getcwd() + "/cache"
from clearml import Task
Task.set_offline(True)
task = Task.init("p", "n", auto_connect_frameworks=False, auto_resource_monitoring=False, auto_connect_streams=False)
task.connect({"lr": 0.1})
task.add_tags(["t1"])
for step, value in enumerate([1.0, 0.5, 0.25]):
    task.get_logger().report_scalar("train", "loss", value, step)
task.get_logger().report_single_value("best", 3.0)
open("f.txt", "w").write("hello")
task.upload_artifact("f", "f.txt")
task.close()
"""

# Trackio wants an older Pillow than the others, so it is not installed for the tests: its version 0.43.0 has run this
# once, and `recorded/trackio.zip` holds the folder. `pip install --no-deps trackio gradio-client orjson` is enough.
TRACKIO = """
import os
os.environ["TRACKIO_DIR"] = os.path.abspath("trackio")
import numpy as np
import trackio
automatic = dict(auto_log_gpu=False, auto_log_cpu=False, embed=False)
run = trackio.init(project="p", name="n", group="g", config={"lr": 0.1, "m": {"d": 3}}, **automatic)
for value in LOSSES:
    trackio.log({"train/loss": value, "word": "w", "inner": {"x": 1}, "most": float("inf")})
picture = trackio.Image(np.zeros((4, 4, 3), "uint8"), caption="black")
trackio.log({"picture": picture, "h": trackio.Histogram(np.arange(9.0))}, step=7)
trackio.log({"t": trackio.Table(columns=["a", "b"], data=[[1, "x"], [2, "y"]]), "md": trackio.Markdown("# hi")})
trackio.log({"tone": trackio.Audio(np.zeros(100, "int16"), sample_rate=8000), "page": trackio.Html("<b>hi</b>")})
trackio.log({"talk": trackio.Trace(messages=[{"role": "user", "content": "hi"}]), "numbers": [1, 2]})
trackio.log_system({"gpu/util": 3.5})
trackio.alert(title="spike", text="loss too high", level=trackio.AlertLevel.WARN)
open("f.txt", "w").write("hello")
artifact = trackio.Artifact("data", type="dataset")
artifact.add_file("f.txt")
run.log_artifact(artifact)
trackio.save("f.txt")
trackio.finish()
trackio.init(project="p", name="second", **automatic)
trackio.log({"x": 1})
trackio.finish()
"""

AIM = """
import io, json, os, shutil, sqlite3, wave
import numpy as np, plotly.graph_objects as go
from aim import Audio, Distribution, Figure, Image, Run, Text
from aim.ext.resource.log import LogLine
from aim.sdk.index_manager import RepoIndexManager
from aim.sdk.objects.artifact import Artifact
from aim.storage.context import Context
sound = io.BytesIO()
with wave.open(sound, "wb") as file:
    file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000), file.writeframes(bytes(200))
quiet = dict(repo=".", system_tracking_interval=None, log_system_params=False)
run = Run(experiment="p", **quiet)
run.name, run.description = "n", "about"
run.add_tag("t1")
run["hparams"] = {"lr": 0.1, "m": {"d": 3}, "l": [1, 2]}
run["__system_params"] = {"arguments": ["train.py"], "packages": {"numpy": "2"}, "env_variables": {"HOME": "/root"}}
for step, value in enumerate(LOSSES):
    run.track(value, name="loss", step=step, epoch=0, context={"subset": "train"})
for step in range(1000):
    run.track(step / 2, name="loss", step=10 * step, context={"subset": "val", "fold": 1})
    if step == 400:
        shutil.copytree(".aim", "early/.aim")
run.track(1, name="count", step=0.5)
run.track(7.0, name="fold/1/loss", context={"subset": "val"})
run.track(3.5, name="__system__cpu")
run.track(80, name="__system__gpu", context={"gpu": 0})
run.track(Text("hello"), name="note", step=3, context={"subset": "train"})
run.track(Image(np.zeros((4, 4, 3), "uint8"), caption="black"), name="picture", step=3)
run.track([Image(np.zeros((4, 4), "uint8")), Image(np.ones((4, 4), "uint8"))], name="pictures", step=3)
run.track(Distribution(hist=np.array([2, 3, 4]), bin_range=(0.0, 3.0)), name="weights", step=3)
run.track(Audio(sound.getvalue(), format="wav"), name="tone", step=3)
run.track(Figure(go.Figure(go.Scatter(y=[1, 2]))), name="figure", step=3)
run.track(LogLine("printed"), name="logs", step=0)
run.log_info("hi", who="there")
open("f.txt", "w").write("hello")
run.set_artifacts_uri(f"file://{os.getcwd()}/kept")
run.log_artifact("f.txt")
run.meta_run_tree["artifacts", "far"] = Artifact("far", uri="s3://bucket")  # Without an upload.
# As Aim before 3.11 wrote numbers, by their steps.
old = Context({}).idx, "old"
run.meta_run_tree[("traces", *old)] = {"dtype": "float", "last_step": 1}
rows = run.series_run_trees[1].subtree(old)
for step in (0, 1):
    rows["val", step], rows["time", step] = 0.5 + step, 1700000000.0 + step
with sqlite3.connect(".aim/run_metadata.sqlite") as database:  # Its page does this by its server.
    database.execute("INSERT INTO note (content, run_id) VALUES ('look', 1)")
run_id = run.hash
run.close()
del run
killed = Run(**quiet)
killed.archived = True
killed.track(1.0, name="x")
shutil.copytree(".aim", "written/.aim")  # Aim puts it in order when it reads it.
RepoIndexManager(killed.repo).index(run_id)
seen = Run(run_id, repo=".", read_only=True)
metrics = [[one.name, one.context.to_dict(), *one.data.items_list()] for one in seen.metrics()]
told = {"id": run_id, "times_s": [seen.creation_time, seen.end_time], "metrics": metrics}
json.dump(told, open("told.json", "w"))
os._exit(0)
"""


def write(code: str, folder: Path) -> Path:
    """Run a program of a library's in a process of its own, with `folder` as home."""
    environment = {**os.environ, "HOME": str(folder), "WANDB_SILENT": "true", "WANDB_DIR": str(folder)}
    environment |= {"PYTHONWARNINGS": "ignore", "GIT_PYTHON_REFRESH": "quiet", "XDG_DATA_HOME": str(folder / "share")}
    environment.pop("WANDB_SERVICE", None)
    code = f"LOSSES = {[repr(value) for value in LOSSES]}\nLOSSES = [float(value) for value in LOSSES]\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder
