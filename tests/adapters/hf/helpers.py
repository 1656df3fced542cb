"""Small real trainings: tiny random models from a configuration, tokenizers that are trained on the spot."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.trainers import WordLevelTrainer
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import tracelet

EXAMPLES = 32
STEPS = 8  # Of an epoch, with the batches of `arguments`.
WORDS = ["good", "bad", "film", "plot", "actor", "scene", "very", "not", "a", "the", "was", "and", "dull", "great"]


def sentences(count: int = EXAMPLES, seed: int = 0) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=6)) for _ in range(count)]


def tokenizer() -> PreTrainedTokenizerFast:
    made = Tokenizer(WordLevel(unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    special = ["[UNK]", "[PAD]", "[EOS]"]
    made.train_from_iterator(sentences(), WordLevelTrainer(special_tokens=special))
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]", eos_token="[EOS]")


def reviews(count: int = EXAMPLES, seed: int = 0) -> list[dict[str, Any]]:
    """Sentences as tokens, and whether they hold more good words than bad ones."""
    made = tokenizer()
    texts = sentences(count, seed)
    labels = [int(text.count("good") + text.count("great") > text.count("bad") + text.count("dull")) for text in texts]
    return [{**made(text), "labels": label} for text, label in zip(texts, labels, strict=True)]


def texts(count: int = EXAMPLES, seed: int = 0) -> list[dict[str, Any]]:
    """The same for a language model."""
    made = tokenizer()
    return [{**(row := made(text)), "labels": list(row["input_ids"])} for text in sentences(count, seed)]


def classifier(**options: Any) -> BertForSequenceClassification:
    torch.manual_seed(1)
    sizes = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return BertForSequenceClassification(
        BertConfig(**sizes, intermediate_size=32, max_position_embeddings=16, **options)
    )


def language_model() -> LlamaForCausalLM:
    torch.manual_seed(1)
    sizes = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=32, max_position_embeddings=128, **special))


def options(**changed: Any) -> dict[str, Any]:
    quiet: dict[str, Any] = {
        "output_dir": "out",
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return quiet | changed


def accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def trainer(*callbacks: Any, model: Any = None, eval_dataset: Any = None, **changed: Any) -> Trainer:
    """A text classification, or with a `model` of the user's whatever that learns from `reviews`."""
    given = {key: changed.pop(key) for key in ("train_dataset", "model_init", "compute_metrics") if key in changed}
    made = Trainer(
        model=(model or classifier()) if "model_init" not in given else None,
        args=TrainingArguments(**options(**changed)),
        eval_dataset=eval_dataset,
        processing_class=tokenizer(),
        callbacks=list(callbacks),
        **{"train_dataset": reviews(), "compute_metrics": accuracy, **given},
    )
    made.remove_callback(
        next(one for one in made.callback_handler.callbacks if type(one).__name__ == "PrinterCallback")
    )
    return made


class Hook(TrainerCallback):
    """One event, and what is done in it."""

    def __init__(self, event: str, action: Any) -> None:
        setattr(self, event, lambda args, state, control, **given: action(state, **given))


class Fail(TrainerCallback):
    """Raises in a step."""

    def __init__(self, step: int, error: BaseException) -> None:
        self.step, self.error = step, error

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == self.step:
            raise self.error


def points(run: tracelet.Run, name: str) -> list[tuple[int, float]]:
    series = run.series(name)
    return list(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def same(ours: Sequence[Any] | Mapping[Any, Any], theirs: Sequence[Any] | Mapping[Any, Any]) -> bool:
    """Equal, where NaN is equal to NaN."""
    return repr(ours) == repr(theirs)
