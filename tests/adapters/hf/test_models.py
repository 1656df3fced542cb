"""Models as artifacts, what `save_total_limit` deletes, and the model card."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertForSequenceClassification, modelcard

import tracelet
from tests.adapters.hf.helpers import Fail, classifier, reviews, trainer
from tracelet import Artifact, MetricType
from tracelet.testing import MemoryBackend
from tracelet_hf import TraceletCallback

EVERY_2 = {"save_strategy": "steps", "save_steps": 2}
EVALUATED = {**EVERY_2, "eval_strategy": "steps", "eval_steps": 2, "learning_rate": 0.01}


def artifacts(callback: TraceletCallback) -> dict[str, Artifact]:
    """The latest version of each."""
    return {artifact.name: artifact for artifact in tracelet.load_run(callback.run_id).artifacts()}


def there(callback: TraceletCallback) -> list[str]:
    return [name for name, artifact in artifacts(callback).items() if artifact.is_kept]


def checkpoints() -> list[str]:
    return sorted(path.name for path in Path("out").glob("checkpoint-*"))


def test_no_model_is_kept_unless_it_is_asked_for():
    callback = TraceletCallback()
    trainer(callback, **EVERY_2).train()
    assert {} == artifacts(callback)


def test_each_checkpoint_is_linked_and_not_copied(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tracelet.journal.files.COPIED_BYTES", -1)  # This model is a small one.
    callback = TraceletCallback(log_model="checkpoint")
    trainer(callback, **EVERY_2).train()
    kept = artifacts(callback)
    assert [f"model/checkpoint-{step}" for step in (2, 4, 6, 8)] == list(kept)
    for name, artifact in kept.items():
        for file in Path("out", name.removeprefix("model/")).iterdir():  # Equal files are kept once.
            assert file.name != "model.safetensors" or file.samefile(artifact.path / file.name)
            assert file.read_bytes() == (artifact.path / file.name).read_bytes()
    one = kept["model/checkpoint-4"]
    assert (4, 0.5, "model") == (one.step, one.metadata["epoch"], one.type)


@pytest.mark.parametrize("backend", [None, MemoryBackend()])
def test_the_run_lets_go_of_checkpoints_that_the_trainer_has_deleted(backend: Any):
    callback = TraceletCallback(log_model="checkpoint", backend=backend)
    made = trainer(callback, **EVERY_2, save_total_limit=2)
    made.train()
    if backend is not None:
        callback.stop()
        assert 4 == len([record for record in backend.records if record.type is MetricType.ARTIFACT])
    assert ["checkpoint-6", "checkpoint-8"] == checkpoints()
    assert ["model/checkpoint-6", "model/checkpoint-8"] == there(callback)
    assert 4 == len(artifacts(callback))
    run = tracelet.load_run(callback.run_id)
    assert ["model/checkpoint-2:v0", "model/checkpoint-4:v0"] == [text for _, text in run.texts("model/pruned")]


def test_a_checkpoint_that_a_backend_has_not_got_stays():
    backend = MemoryBackend()
    backend.fail(ConnectionError)
    callback = TraceletCallback(log_model="checkpoint", backend=backend)
    trainer(callback, **EVERY_2, save_total_limit=1).train()
    assert ["checkpoint-8"] == checkpoints()
    assert 4 == len(there(callback))
    backend.recover()
    callback.stop()
    assert ["model/checkpoint-8"] == there(callback)


@pytest.mark.parametrize("run_id", [None, "mine"])  # The checkpoint's, or one that the user has chosen.
def test_a_training_that_resumes_lets_go_of_the_earlier_ones_too(run_id: str | None):
    backend = MemoryBackend()
    backend.fail(ConnectionError)
    first = TraceletCallback(log_model="checkpoint", run_id=run_id, backend=backend)
    with pytest.raises(RuntimeError):
        trainer(first, Fail(5, RuntimeError()), **EVERY_2, save_total_limit=1).train()
    assert ["model/checkpoint-2", "model/checkpoint-4"] == there(first)
    backend.recover()  # The run that is stopped now sends what it has, and lets go of nothing any more.
    first.experiment.stop("failed")
    assert ["model/checkpoint-2", "model/checkpoint-4"] == there(first)
    second = TraceletCallback(log_model="checkpoint", run_id=run_id)
    trainer(second, **EVERY_2, save_total_limit=1).train(resume_from_checkpoint=True)
    second.stop()
    assert first.run_id == second.run_id
    assert ["model/checkpoint-8"] == there(second)
    pruned = [text for _, text in tracelet.load_run(second.run_id).texts("model/pruned")]
    assert [f"model/checkpoint-{step}:v0" for step in (2, 4, 6)] == pruned


def test_a_second_training_keeps_its_own_checkpoints():
    callback = TraceletCallback(log_model="checkpoint")
    made = trainer(callback, **EVERY_2, save_total_limit=1)
    made.train()
    made.train()
    (name,) = there(callback)
    assert ["model/checkpoint-8"] == [name]
    kept = artifacts(callback)[name].path / "model.safetensors"
    assert kept.read_bytes() == Path("out/checkpoint-8/model.safetensors").read_bytes()


@pytest.mark.parametrize("save_total_limit", [None, 1])
def test_only_the_best_checkpoint_is_kept(save_total_limit: int | None):
    callback = TraceletCallback(log_model="best")
    limited = {**EVALUATED, "save_total_limit": save_total_limit}
    made = trainer(callback, eval_dataset=reviews(8, 1), metric_for_best_model="loss", **limited)
    made.train()
    (name,) = there(callback)
    assert f"model/{Path(made.state.best_model_checkpoint).name}" == name
    assert {"metric": "loss", "value": made.state.best_metric} == artifacts(callback)[name].metadata["best"]
    assert ("best", "latest") == artifacts(callback)[name].aliases


def test_the_final_model_is_kept_as_it_is_saved():
    callback = TraceletCallback(log_model="end")
    made = trainer(callback)
    made.train()
    (artifact,) = artifacts(callback).values()
    loaded = BertForSequenceClassification.from_pretrained(artifact.path)
    assert loaded.classifier.weight.equal(made.model.classifier.weight)
    assert (artifact.path / "tokenizer.json").is_file()
    assert ("model/final", 8, ("final", "latest")) == (artifact.name, artifact.step, artifact.aliases)
    assert [] == [path.name for path in tracelet.load_run(callback.run_id).path.glob("model-*")]


def test_the_final_model_is_the_best_one_where_the_trainer_loads_it():
    callback = TraceletCallback(log_model="end")
    made = trainer(callback, eval_dataset=reviews(8, 1), load_best_model_at_end=True, **EVALUATED)
    made.train()
    (artifact,) = artifacts(callback).values()
    best = load_file(Path(made.state.best_model_checkpoint, "model.safetensors"))
    assert best["classifier.weight"].equal(load_file(artifact.path / "model.safetensors")["classifier.weight"])
    assert ("best", "final", "latest") == artifact.aliases
    assert {"metric": "loss", "value": made.state.best_metric} == artifact.metadata["best"]


def test_a_model_that_is_no_pretrained_one_is_kept_as_well():
    class Linear(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def forward(self, x: Any, labels: Any) -> Any:
            scores = self.layer(x).squeeze(-1)
            return {"loss": ((scores - labels) ** 2).mean(), "logits": scores}

    callback = TraceletCallback(log_model="end", true_loss=True)
    data = [{"x": torch.randn(4), "labels": torch.tensor(1.0)} for _ in range(8)]
    made = trainer(callback, model=Linear(), train_dataset=data, compute_metrics=None)
    made.data_collator = torch.utils.data.default_collate
    made.train()
    (artifact,) = artifacts(callback).values()
    assert load_file(artifact.path / "model.safetensors")["layer.weight"].equal(made.model.layer.weight.data)
    run = tracelet.load_run(callback.run_id)
    assert run.series("train/loss").values.tolist() == pytest.approx(run.series("train/true_loss").values.tolist())


def test_files_of_the_users_are_not_changed():
    callback = TraceletCallback(log_model="checkpoint")
    trainer(callback, **EVERY_2).train()
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    callback.stop()
    shutil.rmtree(tracelet.load_run(callback.run_id).path)
    assert before == {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}


# -- the model card ----------------------------------------------------------------------------------------------------


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hub as a push needs; keeps the files that are committed."""

    files: dict[str, bytes]

    def _answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._answer({"id": "me/model", "sha": "0" * 40, "siblings": [], "private": False})

    def do_POST(self) -> None:
        import base64

        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/repos/create"):
            self._answer({"url": "https://huggingface.co/me/model", "id": "me/model", "name": "me/model"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self._answer(
                {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]}
            )
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._answer(
                {"commitUrl": "https://huggingface.co/me/model/commit/1", "commitOid": "1" * 40, "success": True}
            )
        else:
            self._answer({})

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    files: dict[str, bytes] = {}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("OneHub", (Hub,), {"files": files}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", address, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", address)
    yield files
    server.shutdown()
    thread.join()
    server.server_close()


class Linked(MemoryBackend):
    """A backend with an address."""

    def get_url(self) -> str | None:
        return "https://tracker.example/runs/7"


def test_a_push_puts_the_run_on_the_model_card(hub: dict[str, bytes]):
    comment = modelcard.AUTOGENERATED_TRAINER_COMMENT
    backend = Linked()
    callback = TraceletCallback(backend=backend)
    made = trainer(callback, push_to_hub=True, hub_model_id="me/model", hub_token="hf_" + "a" * 30)
    made.train()
    assert callback.experiment.flush()
    made.push_to_hub()
    card = hub["README.md"].decode()
    assert f"Recorded by Tracelet as run `{callback.run_id}`: [memory](https://tracker.example/runs/7)." in card
    assert {"- tracelet", "- tracelet:https://tracker.example/runs/7"} <= set(card.splitlines())
    assert (str, comment) == (type(modelcard.AUTOGENERATED_TRAINER_COMMENT), modelcard.AUTOGENERATED_TRAINER_COMMENT)
    made.push_to_hub()
    again = hub["README.md"].decode()
    assert (1, 1) == (again.count("Recorded by Tracelet"), again.splitlines().count("- tracelet"))
    other = trainer(model=classifier(), output_dir="other")
    other.create_model_card(model_name="other")
    assert "racelet" not in Path("other/README.md").read_text()
