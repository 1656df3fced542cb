"""Train a small classifier on made-up film reviews, and record it: one line of it is Tracelet's.

Nothing is downloaded: the words, the tokenizer and the model are made here.

python docs/examples/huggingface_reviews.py --learning-rate 0.005
"""

from __future__ import annotations

import argparse
import random
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

from tracelet_hf import TraceletCallback

GOOD, BAD = ["great", "moving", "clever", "funny"], ["dull", "weak", "slow", "silly"]
OTHERS = ["the", "film", "is", "a", "plot", "and", "actors", "are", "rather", "very"]


def review(chance: random.Random) -> tuple[str, int]:
    """Ten words, and whether the good ones are in the majority."""
    opinions = chance.choices(GOOD + BAD, k=3)
    words = opinions + chance.choices(OTHERS, k=7)
    chance.shuffle(words)
    return " ".join(words), int(sum(word in GOOD for word in opinions) > 1)


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    made = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.train_from_iterator(
        [" ".join(GOOD + BAD + OTHERS)], trainers.WordLevelTrainer(special_tokens=["[UNK]", "[PAD]"])
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]")


def reviews(count: int, seed: int) -> list[dict[str, Any]]:
    """Reviews as a model takes them."""
    chance, tokens = random.Random(seed), tokenizer()
    return [{**tokens(text), "labels": label} for text, label in (review(chance) for _ in range(count))]


def model() -> BertForSequenceClassification:
    """A BERT of one layer, with random weights."""
    set_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 16}
    return BertForSequenceClassification(
        BertConfig(**sizes, num_hidden_layers=1, num_attention_heads=2, pad_token_id=1)
    )


def arguments(**changed: Any) -> TrainingArguments:
    """Every step is logged, and every epoch evaluated."""
    given: dict[str, Any] = {
        "output_dir": "checkpoints", "num_train_epochs": 4, "per_device_train_batch_size": 16, "learning_rate": 3e-3,
        "logging_steps": 1, "eval_strategy": "epoch", "save_strategy": "no", "report_to": [], "use_cpu": True,
    }  # fmt: skip
    return TrainingArguments(**given | changed)


def accuracy(prediction: Any) -> dict[str, float]:
    """The share of reviews that were told right."""
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def trainer(callback: TraceletCallback, **changed: Any) -> Trainer:
    """Ready to train."""
    return Trainer(
        model(),
        arguments(**changed),
        train_dataset=reviews(512, seed=1),
        eval_dataset=reviews(128, seed=2),
        processing_class=tokenizer(),
        compute_metrics=accuracy,
        callbacks=[callback],
    )


def main() -> None:
    """Train with the options of the command line."""
    parser = argparse.ArgumentParser(description="Train a small classifier on made-up film reviews.")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    callback = TraceletCallback(project="reviews")
    made = trainer(callback, learning_rate=options.learning_rate, num_train_epochs=options.epochs)
    made.train()
    made.predict(reviews(128, seed=3))
    callback.stop()
    print(f"Recorded as {callback.run_id}: tracelet show {callback.run_id}")


if __name__ == "__main__":
    main()
