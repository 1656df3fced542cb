"""Real trainings: everything that the trainer logs is there, under its step, and what else is known besides."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import Trainer

import tracelet
from tests.adapters.hf.helpers import (
    EXAMPLES,
    STEPS,
    Hook,
    classifier,
    language_model,
    options,
    points,
    reviews,
    same,
    texts,
    trainer,
)
from tests.backends import wandb_files
from tracelet import RunStatus
from tracelet.utils.throughput import Throughput
from tracelet_hf import TraceletCallback


def load(callback: TraceletCallback) -> tracelet.Run:
    return tracelet.load_run(callback.run_id)


def one_name(name: str) -> str:
    """A name of Hugging Face's own callbacks, as it is here: their prefix can come twice."""
    doubled = {"train/train_loss": "train/mean_loss", "train/epoch": "epoch"}
    return doubled.get(name, name.replace("train/train_", "train/")).replace("eval/math_", "eval/math/")


@pytest.mark.parametrize("changed", [{}, {"gradient_accumulation_steps": 2}, {"logging_steps": 3, "eval_steps": 2}])
def test_every_value_of_tensorboard_and_wandb_is_there_under_the_same_step(
    changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    import wandb

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "tb")
    callback = TraceletCallback()
    both = {"report_to": ["tensorboard", "wandb"], "eval_strategy": "steps", "eval_steps": 4, "num_train_epochs": 2}
    made = trainer(callback, eval_dataset={"math": reviews(8, 1)}, **{**both, **changed})
    made.train()
    made.evaluate()
    made.predict(reviews(8, 2))
    file = Path(wandb.run.settings.sync_file)
    wandb.finish()

    run = load(callback)
    board = EventAccumulator("tb").Reload()
    assert {"train/loss", "eval/math_accuracy", "train/total_flos"} <= set(board.Tags()["scalars"])
    for tag in board.Tags()["scalars"]:
        theirs = [(event.step, event.value) for event in board.Scalars(tag)]
        ours = [(step, float(torch.tensor(value))) for step, value in points(run, one_name(tag))]  # It keeps 32 bits.
        assert set(theirs) <= set(ours), tag

    stored = wandb_files.read([file])
    found: dict[str, list[tuple[int, float]]] = {}
    step = 0
    for row in stored.rows:
        step = row.get("train/global_step", step)
        for name, value in row.items():
            if not name.startswith("_") and name != "train/global_step":
                found.setdefault(one_name(name), []).append((step, value))
    assert {"train/loss", "eval/math/accuracy", "test/loss"} <= set(found)
    for name, theirs in found.items():
        assert set(theirs) == set(points(run, name)), name
    singles = {key: value for key, value in stored.summary.items() if key.startswith(("train_", "total_"))}
    assert singles
    for name, value in singles.items():
        assert value == run.series(one_name(f"train/{name}")).values[-1]


def test_every_step_is_there_once_with_names_that_say_the_stage_once():
    callback = TraceletCallback()
    made = trainer(callback, eval_dataset=reviews(8, 1), eval_strategy="epoch", num_train_epochs=2)
    made.train()
    run = load(callback)
    for name in ("train/loss", "train/grad_norm", "train/learning_rate", "epoch", "throughput/step_time_s"):
        assert list(range(1, 2 * STEPS + 1)) == run.series(name).steps.tolist()
    assert [0.5, 1.0] == [value for step, value in points(run, "epoch") if step in (STEPS // 2, STEPS)]
    assert [STEPS, 2 * STEPS] == run.series("eval/loss").steps.tolist()
    assert [] == [name for name in run.names() if name.split("/")[-1].startswith(("train_", "eval_", "test_"))]


def test_datasets_keep_their_names_apart():
    callback = TraceletCallback()
    made = trainer(callback, eval_dataset={"math": reviews(8, 1), "math_hard": reviews(8, 2)}, eval_strategy="epoch")
    made.train()
    run = load(callback)
    for name in ("math", "math_hard"):
        logged = [log[f"eval_{name}_loss"] for log in made.state.log_history if f"eval_{name}_loss" in log]
        assert logged == run.series(f"eval/{name}/loss").values.tolist()
    assert not [name for name in run.names() if "hard_" in name or name.startswith("eval/loss")]


def test_a_language_model_counts_tokens_and_operations_from_shapes():
    callback = TraceletCallback(peak_flops_per_s=1e12)
    made = trainer(callback, model=language_model(), train_dataset=texts(), compute_metrics=None, logging_steps=2)
    made.train()
    run = load(callback)
    tokens_a_step = 4 * len(texts(1)[0]["input_ids"])
    assert [(step, float(step * tokens_a_step)) for step in (2, 4, 6, 8)] == points(run, "train/tokens_seen")
    step_times_s = run.series("throughput/step_time_s").values
    assert run.series("throughput/samples_per_s").values == pytest.approx(4 / step_times_s)
    assert run.series("throughput/tokens_per_s").values == pytest.approx(tokens_a_step / step_times_s)
    flops_a_step = 6 * tokens_a_step * made.model.num_parameters(exclude_embeddings=True)
    assert run.series("throughput/mfu").values == pytest.approx(flops_a_step / step_times_s / 1e12)
    assert made.state.total_flos == pytest.approx(flops_a_step * STEPS)


def test_the_time_of_evaluations_and_checkpoints_is_not_that_of_the_steps():
    now_s = [0.0]

    def spend(seconds: float) -> Any:
        return lambda *_, **__: now_s.__setitem__(0, now_s[0] + seconds)

    slow = [Hook("on_step_begin", spend(1.0)), Hook("on_prediction_step", spend(100.0)), Hook("on_save", spend(50.0))]
    callback = TraceletCallback()
    callback._session.progress.throughput = Throughput(lambda: now_s[0])
    often = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 2, "logging_steps": 3}
    made = trainer(*slow, callback, eval_dataset=reviews(8, 1), **often)
    made.train()
    assert [(3, 1.0), (6, 1.0)] == points(load(callback), "throughput/step_time_s")


def test_arguments_and_the_model_are_parameters_without_credentials():
    callback = TraceletCallback(config={"why": "baseline"})
    deep = {"nested": {"api_key": "very s3cret", "num_memory_tokens": 3}, "url": "https://me:pass@host/?token=s3cret"}
    made = trainer(callback, hub_token="s3cret", learning_rate=0.01, lr_scheduler_kwargs={}, run_name="first try")
    made.model.config.task_specific_params = deep
    made.model.classifier.bias.requires_grad = False
    made.train()
    run = load(callback)
    expected = {
        "learning_rate": 0.01, "gradient_accumulation_steps": 1, "hub_token": "<hidden>", "why": "baseline",
        "model/class": "BertForSequenceClassification", "model/config/hidden_size": 16,
        "model/parameters": 3362, "model/trainable_parameters": 3360, "model/frozen_parameters": 2,
        "model/config/task_specific_params/nested/api_key": "<hidden>",
        "model/config/task_specific_params/nested/num_memory_tokens": 3,
        "model/config/task_specific_params/url": "https://<hidden>@host/?token=<hidden>",
    }  # fmt: skip
    assert expected == {name: run.params[name] for name in expected}
    assert "first try" == run.name
    kept = b"".join(file.read_bytes() for file in run.path.rglob("*") if file.is_file())
    assert b"s3cret" not in kept
    assert "s3cret" == made.args.hub_token


def test_generation_peft_and_quantization_configurations_are_parameters():
    from peft import LoraConfig, get_peft_model
    from transformers import BitsAndBytesConfig

    model = language_model()
    model.config.quantization_config = BitsAndBytesConfig(load_in_4bit=True)
    model.generation_config.top_k = 7
    callback = TraceletCallback()
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    trainer(callback, model=adapted, train_dataset=texts(), compute_metrics=None, max_steps=1).train()
    params = load(callback).params
    expected = {
        "model/peft/default/r": 4,
        "model/peft/default/target_modules": ["q_proj"],
        "model/generation/top_k": 7,
        "model/config/quantization_config/load_in_4bit": True,
        "model/trainable_parameters": 128,
    }
    assert expected == {name: params[name] for name in expected}


def test_several_learning_rates_are_recorded_one_by_one():
    model = classifier()
    groups = [
        {"params": list(model.bert.parameters()), "lr": 0.1},
        {"params": list(model.classifier.parameters()), "lr": 0.2, "name": "head"},
    ]
    optimizer = torch.optim.SGD(groups)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    callback = TraceletCallback()
    made = trainer(callback)
    Trainer(model, made.args, train_dataset=reviews(), callbacks=[callback], optimizers=(optimizer, scheduler)).train()
    run = load(callback)
    assert points(run, "train/learning_rate") == points(run, "lr/group_0")
    assert [(step, pytest.approx(0.2 / step)) for step in range(1, STEPS + 1)] == points(run, "lr/head")


def test_the_norms_of_the_groups_gradients_are_recorded_if_wanted():
    callback = TraceletCallback(grad_norms=True)
    trainer(callback, max_grad_norm=0, logging_steps=2).train()  # Without clipping the norms make up that of the whole.
    run = load(callback)
    each = [run.series(f"grad_norm/group_{group}") for group in (0, 1)]
    assert [[2, 4, 6, 8]] * 2 == [norms.steps.tolist() for norms in each]
    assert run.series("train/grad_norm").values == pytest.approx((each[0].values ** 2 + each[1].values ** 2) ** 0.5)


def test_the_best_value_is_recorded_at_its_step():
    callback = TraceletCallback()
    every = {"eval_strategy": "steps", "eval_steps": 2, "logging_steps": 5, "learning_rate": 0.01}
    made = trainer(
        callback, eval_dataset={"a": reviews(8, 1)}, metric_for_best_model="a_loss", greater_is_better=False, **every
    )
    made.train()
    run = load(callback)
    losses = points(run, "eval/a/loss")
    best = [one for index, one in enumerate(losses) if all(one[1] < earlier for _, earlier in losses[:index])]
    assert best == points(run, "best/eval/a/loss")


def broken_model(steps: set[int], value: float) -> Any:
    """A model whose loss is not finite in some steps, though its gradient is."""
    model = classifier()
    count = iter(range(1, 1000))

    def lose(module: Any, inputs: Any, output: Any) -> Any:
        if module.training and next(count) in steps:
            output.loss = output.loss + value
        return output

    model.register_forward_hook(lose)
    return model


@pytest.mark.parametrize(("value", "logging_steps"), [(math.nan, 1), (math.inf, 4)])
def test_the_true_loss_names_the_steps_that_the_filter_hides(value: float, logging_steps: int, caplog: Any):
    callback = TraceletCallback(true_loss=True)
    made = trainer(callback, model=broken_model({3, 6}, value), logging_steps=logging_steps)
    made.train()
    run = load(callback)
    assert all(math.isfinite(loss) for loss in run.series("train/loss").values)
    assert list(range(1, STEPS + 1)) == run.series("train/true_loss").steps.tolist()
    assert {3, 6} == {step for step, loss in points(run, "train/true_loss") if not math.isfinite(loss)}
    assert [(3, 1.0), (6, 1.0)] == points(run, "train/nonfinite")
    assert [f"step 3: the model's loss was {value}."] == [
        record.message for record in caplog.records if "step" in record.message
    ]


@pytest.mark.parametrize(
    ("logging_steps", "true_loss", "steps", "warning"),
    [
        (
            1,
            False,
            [5, 6, 7, 8],
            "step 5: the loss is 0.0 and the gradient's norm nan. This loss has the mean of earlier",
        ),
        (4, False, [8], "It may have begun at a step since the last log: true_loss=True names it."),
        (4, True, [5, 6, 7, 8], "step 5: the model's loss was nan."),
    ],
)
def test_weights_that_are_not_finite_name_their_step(
    logging_steps: int, true_loss: bool, steps: list[int], warning: str, caplog: Any
):
    model = classifier()
    callback = TraceletCallback(true_loss=true_loss)

    def poison(state: Any, **given: Any) -> None:
        if state.global_step == 4:
            model.classifier.weight.data.fill_(math.nan)

    trainer(Hook("on_step_begin", poison), callback, model=model, logging_steps=logging_steps).train()
    run = load(callback)
    assert steps == run.series("train/nonfinite").steps.tolist()
    assert all(math.isfinite(loss) for loss in run.series("train/loss").values)
    (message,) = [record.message for record in caplog.records if record.message.startswith("step ")]
    assert warning in message


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_true_loss_is_the_logged_one_where_all_is_well(accumulated: int):
    callback = TraceletCallback(true_loss=True)
    trainer(callback, eval_dataset=reviews(8, 1), eval_strategy="steps", eval_steps=2,
            gradient_accumulation_steps=accumulated).train()  # fmt: skip
    run = load(callback)
    assert points(run, "train/loss") == [(step, pytest.approx(loss)) for step, loss in points(run, "train/true_loss")]


def test_a_compiled_model_shows_its_true_loss_too():
    callback = TraceletCallback(true_loss=True)
    trainer(callback, torch_compile=True, torch_compile_backend="eager").train()
    run = load(callback)
    assert points(run, "train/loss") == [(step, pytest.approx(loss)) for step, loss in points(run, "train/true_loss")]


def test_recording_does_not_change_the_training():
    trained = []
    for callbacks in ([], [TraceletCallback(true_loss=True)]):
        made = trainer(*callbacks, model=classifier(), eval_dataset=reviews(8, 1), eval_strategy="steps", eval_steps=3)
        made.train()
        trained.append((made.model.classifier.weight.detach(), made.state.log_history))
    assert trained[0][0].equal(trained[1][0])
    times = ("runtime", "per_second")
    histories = [
        [{key: value for key, value in log.items() if not key.endswith(times)} for log in history]
        for _, history in trained
    ]
    assert same(*histories)


def test_logs_of_the_users_own_are_recorded_and_not_changed():
    def log(state: Any, **given: Any) -> None:
        if state.global_step == 3:
            made.log(logs)

    logs: dict[Any, Any] = {
        "rewards/chosen": 1,
        "note": "hello",
        "nested": {"a": 2.0},
        "nothing": None,
        "train/x": 3.0,
        7: 4.0,
    }
    before = dict(logs)
    callback = TraceletCallback()
    made = trainer(callback, Hook("on_step_end", log))
    made.train()
    run = load(callback)
    assert {**before, "epoch": 3 / STEPS} == logs  # The trainer adds the epoch.
    assert [(3, 1.0)] == points(run, "train/rewards/chosen")
    assert [(3, 2.0)] == points(run, "train/nested/a")
    assert ([(3, 3.0)], [(3, 4.0)]) == (points(run, "train/x"), points(run, "train/7"))
    assert [(3, "hello")] == run.texts("train/note")
    assert math.isnan(run.series("train/nothing").values[0])


@pytest.mark.parametrize("stage", ["evaluate", "predict"])
def test_an_evaluation_alone_is_a_run(stage: str):
    callback = TraceletCallback(name="only", config={"why": "baseline"})
    made = trainer(callback, eval_dataset=reviews(8, 1))
    metrics = made.evaluate() if stage == "evaluate" else made.predict(reviews(8, 1)).metrics
    run = load(callback)
    name = "eval" if stage == "evaluate" else "test"
    assert [(0, metrics[f"{name}_loss"])] == points(run, f"{name}/loss")
    assert ("only", "baseline", 16) == (run.name, run.params["why"], run.params["model/config/hidden_size"])


def test_evaluations_after_the_training_belong_to_the_run():
    callback = TraceletCallback()
    made = trainer(callback, eval_dataset=reviews(8, 1))
    made.train()
    made.evaluate(metric_key_prefix="eval_after")
    made.evaluate(metric_key_prefix="final")
    made.predict(reviews(8, 2), metric_key_prefix="test_hard")
    callback.stop()
    run = load(callback)
    for name in ("eval/after/loss", "final/accuracy", "test/hard/loss"):
        assert [STEPS] == run.series(name).steps.tolist()
    assert RunStatus.FINISHED is run.status
    assert 1 == len(list(run.path.parent.iterdir()))


def test_a_second_training_is_the_next_segment_of_the_run():
    callback = TraceletCallback()
    made = trainer(callback)
    made.train()
    made.train()
    callback.stop()
    made.train()
    callback.stop()
    run = load(callback)
    assert 3 * list(range(1, STEPS + 1)) == run.series("train/loss").steps.tolist()
    assert [(0, 2.0), (0, 3.0)] == points(run, "tracelet/segment")
    assert [1, 2] == [writer["attempt"] for writer in writers(run)]
    assert 1 == len([record for record in run.records(tracelet.MetricType.PARAMETER) if record.name == "learning_rate"])


def writers(run: tracelet.Run) -> list[dict[str, Any]]:
    from tracelet.journal.reader import first_line

    return sorted((first_line(log) or {} for log in run.path.glob("*.log")), key=lambda line: line["time_ns"])


@pytest.mark.parametrize("given", [TraceletCallback, TraceletCallback()])
def test_a_class_or_a_callback_that_is_added_later_is_enough(given: Any):
    made = trainer()
    made.add_callback(given)
    made.train()
    assert STEPS == len(tracelet.load_run("latest").series("train/loss"))


def test_the_batch_of_several_examples_counts_all_of_them():
    callback = TraceletCallback()
    trainer(callback, gradient_accumulation_steps=2, per_device_train_batch_size=2).train()
    run = load(callback)
    assert EXAMPLES / 4 == len(run.series("train/loss"))
    each = run.series("throughput/samples_per_s").values * run.series("throughput/step_time_s").values
    assert each == pytest.approx([4.0] * len(each))
    assert options()["per_device_train_batch_size"] == 4
