"""How much longer a training of Hugging Face's takes with a callback that records every step.

A small language model is trained with `logging_steps=1`, some 2 ms a step, half of it the trainer's. The callbacks
take turns, each of some steps, in a new order each round, so that whatever else the machine does hits all of them
alike; the first steps of a turn do not count, since nobody's code comes cold to each step of a training. Two figures,
medians over the steps on one thread of torch's: the time in the callback's own events, beside the CPU time of a step
of `report_to=[]`, where the trainer logs just as often, to nobody; and, in rounds where no event is timed, by how
much the step was longer than one of those. The second has all of it, also what the trainer itself spends on one
callback more and what the callback leaves in the processor's caches, but is exact to some 0.05 ms only. W&B runs
offline; MLflow logs into SQLite from a thread of its own, as the callback of transformers has it: that shows in the
longer steps alone, and it is waited for after its turn.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import mlflow
import torch
from torch import nn
from transformers import (
    PretrainedConfig,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.integrations import MLflowCallback, TensorBoardCallback, WandbCallback
from transformers.utils import logging as transformers_logging

from benchmarks.measuring import Row, Target, scaled, show
from tracelet_hf import TraceletCallback

_STEPS = 200  # Of each callback, and as many again with its events timed.
_TURN, _COLD = 12, 4  # Steps of a turn, and how many of them do not count.
_WARM_UP = 2  # Rounds.
_LIMIT = 1.02
_TOKENS, _BATCH = 64, 8
_OFF, _NOTHING, _OURS, _TRUE_LOSS = "report_to=[]", "nothing", "TraceletCallback", "TraceletCallback(true_loss=True)"


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    for name in ("tracelet", "tracelet_hf", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), _scratch() as directory:
            warnings.simplefilter("ignore")
            _measure(directory, 2 * scaled(_STEPS / (_TURN - _COLD), scale, 1))
    finally:
        transformers_logging.set_verbosity(verbosity)
        torch.set_num_threads(threads)


def _measure(directory: Path, rounds: int) -> None:
    ours = {name: TraceletCallback(dir=directory, true_loss=name == _TRUE_LOSS) for name in (_OURS, _TRUE_LOSS)}
    peers = {"TensorBoard": TensorBoardCallback(), "W&B, offline": WandbCallback(), "MLflow": MLflowCallback()}
    callbacks = {_NOTHING: TrainerCallback(), **ours, **peers}
    timed = {name: _Timed(callback) for name, callback in callbacks.items()}
    timed["MLflow"].settle = mlflow.flush_async_logging
    turns = _Turns({_OFF: None, **timed})
    steps = (rounds + _WARM_UP) * _TURN * len(turns.timed) + 1
    trainer = Trainer(
        _Model(PretrainedConfig()),
        TrainingArguments(
            output_dir=os.fspath(directory / "out"),
            per_device_train_batch_size=_BATCH,
            max_steps=steps,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=_data(_BATCH * steps),  # One epoch.
        callbacks=[turns, *timed.values()],
    )
    trainer.remove_callback(PrinterCallback)
    turns.handler = trainer.callback_handler
    trainer.train()
    for callback in ours.values():
        callback.stop()
    _show(turns)


def _show(turns: _Turns) -> None:
    step_ms = statistics.median(step.cpu_ns for step in turns.bare[_OFF]) / 1e6
    rows = [Row(_OFF, f"the step: {step_ms:.3f} ms")]
    for name in [name for name in turns.timed if name != _OFF]:
        own_ms = statistics.median(step.own_ns for step in turns.timed[name]) / 1e6
        longer = zip(turns.bare[name], turns.bare[_OFF], strict=True)
        cpu_ms, wall_ms = (
            statistics.median(differences) / 1e6
            for differences in zip(
                *((one.cpu_ns - off.cpu_ns, one.wall_ns - off.wall_ns) for one, off in longer), strict=True
            )
        )
        target = Target(1 + own_ms / step_ms, _LIMIT, "times") if name == _OURS else None
        figure = f"{own_ms:.3f} ms (step {cpu_ms:+.3f}, wall {wall_ms:+.3f})"
        rows.append(Row(name, figure, ratio=f"{1 + own_ms / step_ms:.3f}", target=target))
    show(f"Hugging Face Trainer: time in the callback's events, each step logged; ratio to {_OFF}", rows)


@final
@dataclass(frozen=True, slots=True)
class _Step:
    """The time of a step, and of its callback's own events."""

    cpu_ns: int
    wall_ns: int
    own_ns: int


@final
class _Timed(TrainerCallback):
    """A callback, and the time that it has spent."""

    def __init__(self, callback: TrainerCallback) -> None:
        self.callback, self.spent_ns = callback, 0
        self.settle: Callable[[], None] = lambda: None  # Waits for what it does on a thread of its own.
        for event in (name for name in dir(TrainerCallback) if name.startswith("on_")):
            setattr(self, event, functools.partial(self._time, getattr(callback, event)))

    def _time(self, event: Callable[..., Any], *arguments: Any, **given: Any) -> Any:
        began_ns = time.perf_counter_ns()
        result = event(*arguments, **given)
        self.spent_ns += time.perf_counter_ns() - began_ns
        return result


@final
class _Turns(TrainerCallback):
    """Gives each step its callback, and times it to the beginning of the next step.

    The callbacks' events are timed in every other round; the steps of the rounds between have nothing of that.
    """

    handler: Any

    def __init__(self, cases: Mapping[str, _Timed | None]) -> None:
        self.timed: dict[str, list[_Step]] = {name: [] for name in cases}
        self.bare: dict[str, list[_Step]] = {name: [] for name in cases}
        self._cases = cases
        self._order: list[str] = []
        self._steps = self.bare
        self._present: str | None = None
        self._began_ns = (0, 0, 0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        turn, place = divmod(state.global_step - 1, _TURN)  # Of the step that has ended.
        if self._present is not None and turn >= _WARM_UP * len(self._cases) and place >= _COLD:
            times_ns = zip(self._times_ns(), self._began_ns, strict=True)
            self._steps[self._present].append(_Step(*(now_ns - began_ns for now_ns, began_ns in times_ns)))
        if place == _TURN - 1:
            self._begin_turn()
        self._began_ns = self._times_ns()

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        for case in filter(None, self._cases.values()):
            if not {case, case.callback} & set(self.handler.callbacks):
                case.callback.on_train_end(args, state, control, **given)

    def _begin_turn(self) -> None:
        before = self._cases[self._present] if self._present is not None else None
        if before is not None:
            before.settle()
        if not self._order:
            self._order = random.sample(list(self._cases), len(self._cases))
            self._steps = self.timed if self._steps is self.bare else self.bare
        self._present = self._order.pop()
        cases = filter(None, self._cases.values())
        of_cases = {one for case in cases for one in (case, case.callback)}
        others = [one for one in self.handler.callbacks if one not in of_cases]
        chosen = self._cases[self._present]
        present = [] if chosen is None else [chosen if self._steps is self.timed else chosen.callback]
        self.handler.callbacks = [*others, *present]

    def _times_ns(self) -> tuple[int, int, int]:
        present = self._cases[self._present] if self._present is not None else None
        return time.thread_time_ns(), time.perf_counter_ns(), 0 if present is None else present.spent_ns


@final
class _Model(PreTrainedModel):
    """Guesses each token from itself: with attention a step of a model as small as this takes 3 ms."""

    config_class = PretrainedConfig

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        blocks = (nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64)) for _ in range(2))
        self.layers = nn.Sequential(nn.Embedding(_TOKENS, 64), *blocks, nn.Linear(64, _TOKENS))
        self.post_init()

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        logits = self.layers(input_ids)
        return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}


def _data(count: int) -> list[dict[str, torch.Tensor]]:
    tokens = torch.randint(0, _TOKENS, (count, 16))
    return [{"input_ids": row, "labels": row} for row in tokens]


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A directory for what the trackers write, and the environment that sends them there."""
    with tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as directory:
        ours = {
            "WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": directory,
            "TENSORBOARD_LOGGING_DIR": directory, "MLFLOW_TRACKING_URI": f"sqlite:///{directory}/mlflow.db",
        }  # fmt: skip
        before = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        try:
            yield Path(directory)
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


if __name__ == "__main__":
    main()
