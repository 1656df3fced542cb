"""One training of 16 steps in each framework, which is interrupted: python interrupted.py FRAMEWORK PLAN…

The packages are imported once; for each PLAN, `DIRECTORY,HOW,STEP`, this process forks one that trains in there,
goes on from the checkpoint that lies there, and ends as any program does. HOW is `kill`, `exception`, `interrupt` or
`nothing`, in the step STEP. There is a checkpoint each 4 steps.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

STEPS, EVERY, BATCH = 16, 4, 16


MLFLOW = ["tracelet.backends.mlflow_backend", "mlflow.store.tracking.sqlalchemy_store"]
"""What delivery to its database needs, and takes seconds to import."""


class Interruption:
    def __init__(self, how: str, step: int) -> None:
        self.how, self.step = how, step

    def __call__(self, step: int) -> None:
        """As a step begins; the first one is 1."""
        if step == self.step:
            match self.how:
                case "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "exception":
                    raise RuntimeError("no memory")
                case "interrupt":
                    os.kill(os.getpid(), signal.SIGINT)


def digits() -> tuple[Any, Any]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images[: STEPS * BATCH] / 16).astype("float32"), labels[: STEPS * BATCH].astype("int32")


def batch_of(step: int) -> slice:
    return slice((step - 1) * BATCH, step * BATCH)


def torch_loop(begin_step: Callable[[int], None]) -> None:
    import torch

    from tracelet import Experiment

    torch.manual_seed(0)
    images, labels = (torch.from_numpy(part) for part in digits())
    model = torch.nn.Linear(64, 10)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    saved = torch.load("checkpoint.pt", weights_only=True) if os.path.exists("checkpoint.pt") else None
    if saved is not None:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
    backend = "mlflow" if os.path.basename(os.getcwd()) == "interrupted" else None
    with Experiment("torch", backend, resume=saved and saved["tracelet"]) as experiment:
        for step in range(saved["tracelet"]["step"] + 1 if saved else 1, STEPS + 1):
            begin_step(step)
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(images[batch_of(step)]), labels[batch_of(step)].long())
            loss.backward()
            optimizer.step()
            experiment.log_metric("train/loss", loss, step)
            if step % EVERY == 0:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save({**state, "tracelet": experiment.resume_state(step)}, "new.pt")
                os.replace("new.pt", "checkpoint.pt")


def jax_loop(begin_step: Callable[[int], None]) -> None:
    import jax
    import optax
    import orbax.checkpoint as ocp
    from flax import linen as nn

    from tracelet import Experiment
    from tracelet.frameworks.jax_framework import TraceletTrainState, tracked

    images, labels = digits()
    network = nn.Dense(10)
    params = network.init(jax.random.key(0), images[:1])["params"]
    state = TraceletTrainState.create(apply_fn=network.apply, params=params, tx=optax.adam(0.01))

    @tracked
    def train_step(state: Any, batch: Any) -> Any:
        def loss_of(params: Any) -> Any:
            logits = state.apply_fn({"params": params}, batch[0])
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

        loss, grads = jax.value_and_grad(loss_of)(state.params)
        return state.apply_gradients(grads=grads, loss=loss)

    with ocp.CheckpointManager(os.path.abspath("checkpoints")) as manager:
        saved = None
        if (last := manager.latest_step()) is not None:
            wanted = ocp.args.Composite(state=ocp.args.StandardRestore(state), tracelet=ocp.args.JsonRestore())
            found = manager.restore(last, args=wanted)
            state, saved = found["state"], found["tracelet"]
        with Experiment("jax", resume=saved) as experiment:
            for step in range(int(state.step) + 1, STEPS + 1):
                begin_step(step)
                state = train_step(state, (images[batch_of(step)], labels[batch_of(step)]))
                if step % EVERY == 0:
                    kept = ocp.args.Composite(
                        state=ocp.args.StandardSave(state), tracelet=ocp.args.JsonSave(experiment.resume_state(step))
                    )
                    manager.save(step, args=kept)
                    manager.wait_until_finished()


def keras_fit(begin_step: Callable[[int], None]) -> None:
    import keras

    from tracelet_keras import TraceletCallback

    class Interrupted(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            begin_step(int(self.model.optimizer.iterations) + 1)

    keras.utils.set_random_seed(0)
    images, labels = digits()
    part = slice(EVERY * BATCH)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    callback = TraceletCallback("keras", checkpoint="backup", log_freq="batch")
    callbacks = [callback, keras.callbacks.BackupAndRestore("backup"), Interrupted()]
    model.fit(images[part], labels[part], BATCH, STEPS // EVERY, 0, callbacks, shuffle=False)


def huggingface_trainer(begin_step: Callable[[int], None]) -> None:
    from transformers.trainer_utils import get_last_checkpoint

    from tests.adapters.hf.helpers import Hook, trainer
    from tracelet_hf import TraceletCallback

    def step_begins(state: Any, **given: Any) -> None:
        begin_step(state.global_step + 1)

    made = trainer(
        TraceletCallback("huggingface"),
        Hook("on_step_begin", step_begins),
        num_train_epochs=2,
        save_strategy="steps",
        save_steps=EVERY,
        restore_callback_states_from_checkpoint=True,
    )
    made.train(resume_from_checkpoint=get_last_checkpoint("out") if os.path.exists("out") else None)


FRAMEWORKS = {
    "torch": (torch_loop, ["torch", "sklearn.datasets", "tracelet.core.experiment", *MLFLOW]),
    "jax": (
        jax_loop,
        ["jax", "optax", "orbax.checkpoint", "flax.linen", "sklearn.datasets", "tracelet.core.experiment"],
    ),
    "keras": (keras_fit, ["keras", "sklearn.datasets", "tracelet_keras.callback"]),
    "huggingface": (huggingface_trainer, ["tests.adapters.hf.helpers", "tracelet_hf.callback"]),
}


def forked(plans: list[str]) -> Interruption:
    """Fork a process for each plan, one after the other, and tell how it ended. Each returns, in its directory."""
    for plan in plans:
        directory, how, step = plan.split(",")
        child = os.fork()
        if child == 0:
            os.chdir(directory)
            return Interruption(how, int(step))
        print(how, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    sys.exit()


if __name__ == "__main__":
    train, modules = FRAMEWORKS[sys.argv[1]]
    for module in modules:
        importlib.import_module(module)
    train(forked(sys.argv[2:]))
