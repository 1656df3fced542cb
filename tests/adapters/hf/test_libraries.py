"""TRL and sentence-transformers: their trainers take the callback as it is."""

from __future__ import annotations

import math
from typing import Any

import pytest
from datasets import Dataset
from transformers import LlamaForCausalLM

import tracelet
from tests.adapters.hf.helpers import language_model, options, points, sentences, tokenizer
from tracelet_hf import TraceletCallback

STEPS = 4


def trained(trainer: Any, callback: TraceletCallback) -> tracelet.Run:
    trainer.train()
    trainer.evaluate()
    callback.stop()
    run = tracelet.load_run(callback.run_id)
    assert list(range(1, STEPS + 1)) == run.series("train/loss").steps.tolist()
    for log in trainer.state.log_history:  # Each number of its history is there, under its step.
        is_evaluation = any(key.endswith("_runtime") for key in log)
        for key, value in log.items():
            if key not in ("step", "epoch") and not is_evaluation and isinstance(value, float):
                assert (log["step"], value) in points(run, f"train/{key}") or math.isnan(value)
    return run


def arguments(kind: Any, **changed: Any) -> Any:
    return kind(**options(max_steps=STEPS, per_device_eval_batch_size=4, **changed))


def test_supervised_fine_tuning():
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_dict({"text": sentences()})
    callback = TraceletCallback()
    trainer = SFTTrainer(
        language_model(),
        arguments(SFTConfig, max_length=16, eval_strategy="steps", eval_steps=2, eos_token="[EOS]", bf16=False),
        train_dataset=data,
        eval_dataset={"math": data.select(range(4)), "prose": data.select(range(4, 8))},
        processing_class=tokenizer(),
        callbacks=[callback],
    )
    run = trained(trainer, callback)
    assert {"train/mean_token_accuracy", "eval/math/mean_token_accuracy", "eval/prose/loss"} <= set(run.names())
    assert [2, 4, 4] == run.series("eval/prose/mean_token_accuracy").steps.tolist()
    assert ("[EOS]", 16) == (run.params["eos_token"], run.params["max_length"])


def saved_model() -> LlamaForCausalLM:
    """One with a path: TRL loads the reference model once more from there."""
    language_model().save_pretrained("model")
    tokenizer().save_pretrained("model")
    return LlamaForCausalLM.from_pretrained("model")


def test_direct_preference_optimization():
    from trl import DPOConfig, DPOTrainer

    rows = sentences(16)
    data = Dataset.from_dict({"prompt": rows, "chosen": [" good"] * 16, "rejected": [" bad"] * 16})
    callback = TraceletCallback(true_loss=True)
    trainer = DPOTrainer(
        saved_model(),
        args=arguments(DPOConfig, max_length=16, bf16=False),
        train_dataset=data,
        eval_dataset=data.select(range(4)),
        processing_class=tokenizer(),
        callbacks=[callback],
    )
    run = trained(trainer, callback)
    assert {"train/rewards/chosen", "train/logps/rejected", "eval/rewards/margins"} <= set(run.names())


def test_group_relative_policy_optimization():
    from trl import GRPOConfig, GRPOTrainer

    data = Dataset.from_dict({"prompt": sentences()})
    callback = TraceletCallback()
    trainer = GRPOTrainer(
        saved_model(),
        reward_funcs=lambda completions, **_: [float(text.count("good")) for text in completions],
        args=arguments(GRPOConfig, max_completion_length=8, num_generations=2, bf16=False),
        train_dataset=data,
        eval_dataset=data.select(range(4)),
        processing_class=tokenizer(),
        callbacks=[callback],
    )
    run = trained(trainer, callback)
    assert {"train/reward", "train/completions/mean_length", "eval/reward"} <= set(run.names())


@pytest.mark.filterwarnings("ignore:Importing from 'sentence_transformers:DeprecationWarning")
def test_sentence_transformers():
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.evaluation import EmbeddingSimilarityEvaluator
    from sentence_transformers.losses import CoSENTLoss
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel

    sizes = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(**sizes, intermediate_size=32, max_position_embeddings=16)).save_pretrained("base")
    tokenizer().save_pretrained("base")
    model = SentenceTransformer(modules=[Transformer("base"), Pooling(16)], device="cpu")
    first, second = sentences(16), sentences(16, seed=1)
    scores = [index / 16 for index in range(16)]
    data = Dataset.from_dict({"sentence1": first, "sentence2": second, "score": scores})
    callback = TraceletCallback(log_model="end")
    trainer = SentenceTransformerTrainer(
        model,
        arguments(SentenceTransformerTrainingArguments),
        train_dataset=data,
        eval_dataset=data.select(range(4)),
        loss=CoSENTLoss(model),
        evaluator=EmbeddingSimilarityEvaluator(first, second, scores, name="sts"),
        callbacks=[callback],
    )
    run = trained(trainer, callback)
    assert {"eval/loss", "eval/sts_spearman_cosine"} <= set(run.names())
    (record,) = run.records(tracelet.MetricType.ARTIFACT)
    assert SentenceTransformer(record.value, device="cpu").encode(["good film"]) == pytest.approx(
        model.encode(["good film"]), abs=1e-6
    )
