"""`log_model`: each framework's real models, saved, loaded by the printed code as it stands, and compared."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tracelet
from tracelet.errors import UsageError
from tracelet.models.format import SavedModel

EXAMPLE = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)


@pytest.fixture(scope="module")
def nets() -> Iterator[ModuleType]:
    """The module `nets`, as a program would import it."""
    spec = importlib.util.spec_from_file_location("nets", Path(__file__).with_name("nets.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["nets"] = module
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "jax")
        spec.loader.exec_module(module)
    yield module
    del sys.modules["nets"]


@pytest.fixture
def experiment() -> Iterator[tracelet.Experiment]:
    with tracelet.Experiment("models", collectors=[]) as experiment:
        yield experiment


def card_of(artifact: Any) -> dict[str, Any]:
    return json.loads((artifact.path / "model.json").read_bytes())


def loaded_as_printed(artifact: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the code in `MODEL.md` makes, run in the model's directory."""
    (code,) = re.findall(r"```python\n(.*?)```", (artifact.path / "MODEL.md").read_text(), re.S)
    assert card_of(artifact)["code"] == code.rstrip()
    namespace: dict[str, Any] = {}
    with monkeypatch.context() as context:
        context.chdir(artifact.path)
        exec(compile(code, "MODEL.md", "exec"), namespace)  # noqa: S102  Our own text.
    return namespace


def test_a_torch_model_with_shared_strided_and_overlapping_tensors(nets, experiment, monkeypatch):
    import torch

    model, words = nets.Tied(), torch.tensor([[1, 2, 6]])
    expected = model(words)
    artifact = experiment.log_model(
        model, "tied", aliases=["best"], metadata={"fold": 3}, iteration=5, input_example=words, output_example=expected
    )
    for again in (loaded_as_printed(artifact, monkeypatch)["model"], tracelet.load_model(artifact, into=nets.Tied())):
        assert torch.equal(expected, again(words))
        state = again.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert again.head.weight is again.embedding.weight
    assert ("tied", "v0", "model", ("best", "latest"), 5) == (
        artifact.name, artifact.version, artifact.type, tuple(sorted(artifact.aliases)), artifact.step,
    )  # fmt: skip
    card = card_of(artifact)
    assert {"inputs": {"shape": [1, 3], "dtype": "int64"}, "outputs": {"shape": [1, 3, 7], "dtype": "float32"}} == (
        card["signature"]
    )
    assert (7 * 4 + 4, "nets:Tied", torch.__version__) == (
        card["parameters"], card["class"], card["versions"]["torch"],
    )  # fmt: skip
    assert {"head.weight": "embedding.weight"} == card["details"]["shared"]
    with np.load(artifact.path / card["input_example"]) as arrays:
        assert words.tolist() == arrays["input"].tolist()
    found = tracelet.load_run(experiment.run_dir).artifact("tied:best")
    assert (3, "torch", 32) == tuple(found.metadata[key] for key in ("fold", "framework", "parameters"))


def test_the_source_of_a_class_is_kept_without_its_credentials(nets, experiment):
    artifact = experiment.log_model(nets.Tied(), "tied")
    text = (artifact.path / card_of(artifact)["source"]).read_text()
    assert "class Tied(torch.nn.Module)" in text
    assert nets.PASSWORD not in text


def test_what_compiles_or_distributes_a_torch_model_is_left_out(experiment):
    import torch

    module = torch.nn.Linear(4, 2)
    artifact = experiment.log_model(torch.compile(torch.nn.DataParallel(module)), "wrapped")
    assert {"weight", "bias"} == tracelet.load_model(artifact).keys()
    assert 10 == artifact_parameters(artifact)


def artifact_parameters(artifact: Any) -> int:
    return card_of(artifact)["parameters"]


def test_a_torch_state_dict_and_one_that_does_not_fit(experiment, monkeypatch):
    import torch

    module = torch.nn.Linear(4, 2)
    artifact = experiment.log_model(module.state_dict(), "state")
    assert torch.equal(module.weight, loaded_as_printed(artifact, monkeypatch)["model"]["weight"])
    with pytest.raises(UsageError, match=r"Conv1d is not the model that was logged|size mismatch"):
        tracelet.load_model(artifact, into=torch.nn.Conv1d(1, 1, 1))


def test_a_lightning_module_comes_back_with_its_hyper_parameters(nets, experiment, monkeypatch):
    import torch

    model = nets.Lit(4, rate=0.3, callback=print)
    artifact = experiment.log_model(model, "lit")
    again = loaded_as_printed(artifact, monkeypatch)["model"]
    assert torch.equal(model(torch.from_numpy(EXAMPLE)), again(torch.from_numpy(EXAMPLE)))
    assert {"size": 4, "rate": 0.3} == card_of(artifact)["config"]
    assert 0.3 == again.hparams["rate"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=2
    )
    place = tmp_path_factory.mktemp("bert")
    BertForSequenceClassification(config).save_pretrained(place)
    return BertForSequenceClassification.from_pretrained(place)


def test_a_transformers_model_with_its_tokenizer(bert, experiment, monkeypatch, tmp_path):
    import torch
    from transformers import BertTokenizer

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]))
    tokenizer = BertTokenizer(os.fspath(tmp_path / "vocab.txt"))
    batch = tokenizer("a b", return_tensors="pt")
    artifact = experiment.log_model(bert, "bert", processor=tokenizer, input_example=dict(batch))
    printed = loaded_as_printed(artifact, monkeypatch)
    for again in (printed["model"], tracelet.load_model(artifact)):
        assert torch.equal(bert(**batch).logits, again(**batch).logits)
    assert batch["input_ids"].tolist() == printed["processor"]("a b", return_tensors="pt")["input_ids"].tolist()
    assert {"shape": [1, 4], "dtype": "int64"} == card_of(artifact)["signature"]["inputs"]["input_ids"]
    assert not [path for path in artifact.path.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".pth")]


def test_an_adapter_of_peft(bert, experiment, monkeypatch):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import BertForSequenceClassification

    words = torch.tensor([[5, 6, 7]])
    base = BertForSequenceClassification.from_pretrained(bert.name_or_path)
    model = get_peft_model(base, LoraConfig(target_modules=["query"], init_lora_weights=False)).eval()
    artifact = experiment.log_model(model, "adapter")
    base = BertForSequenceClassification.from_pretrained(bert.name_or_path)
    for again in (loaded_as_printed(artifact, monkeypatch)["model"], tracelet.load_model(artifact, into=base)):
        assert torch.equal(model(words).logits, again.eval()(words).logits)
    with pytest.raises(UsageError, match="give the model that it adapts"):
        tracelet.load_model(artifact)


def test_weights_that_would_be_unpickled_are_not_loaded(bert, experiment):
    artifact = experiment.log_model(bert, "bert")
    os.rename(artifact.path / "model.safetensors", artifact.path / "pytorch_model.bin")
    with pytest.raises(UsageError, match="no weights as safetensors"):
        tracelet.load_model(artifact)


@pytest.mark.filterwarnings("default:__array__ implementation doesn't accept:DeprecationWarning")  # Keras' own.
@pytest.mark.parametrize("kind", ["graph", "own class"])
def test_a_keras_model(nets, experiment, monkeypatch, kind):
    import keras

    if kind == "graph":
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    else:
        model = nets.Doubled()
        model(EXAMPLE)
    artifact = experiment.log_model(model, "keras")
    own = nets.Doubled if kind == "own class" else None
    for again in (loaded_as_printed(artifact, monkeypatch)["model"], tracelet.load_model(artifact, into=own)):
        np.testing.assert_array_equal(model.predict(EXAMPLE, verbose=0), again.predict(EXAMPLE, verbose=0))
    if kind == "graph":
        described = {
            "inputs": [{"shape": [None, 4], "dtype": "float32"}],
            "outputs": [{"shape": [None, 3], "dtype": "float32"}],
        }
        assert described == card_of(artifact)["signature"]
        assert 15 == artifact_parameters(artifact)


def test_a_keras_model_that_is_not_built_is_the_callers_mistake(nets, experiment):
    with pytest.raises(UsageError, match="build it"):
        experiment.log_model(nets.Doubled(), "keras")


def test_a_train_state_comes_back_whole(experiment, monkeypatch):
    import jax
    import jax.numpy as jnp
    import optax
    from flax import linen
    from flax.training.train_state import TrainState

    model = linen.Dense(3, param_dtype=jnp.bfloat16)
    params = model.init(jax.random.key(0), EXAMPLE)["params"]
    state = TrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(1e-3))
    state = state.apply_gradients(grads=jax.tree.map(jnp.ones_like, params))
    artifact = experiment.log_model(state, "state")
    printed = loaded_as_printed(artifact, monkeypatch)["model"]
    empty = TrainState.create(apply_fn=model.apply, params=jax.tree.map(jnp.zeros_like, params), tx=optax.adam(1e-3))
    again = tracelet.load_model(artifact, into=empty)
    assert jnp.bfloat16 == printed["kernel"].dtype
    np.testing.assert_array_equal(state.params["kernel"], printed["kernel"])
    for mine, its in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(mine, its)
    assert 15 == artifact_parameters(artifact)


def test_an_nnx_module_with_lists_and_random_numbers(nets, experiment, monkeypatch):
    from flax import nnx

    model = nets.Nnx(4, rngs=nnx.Rngs(1))
    artifact = experiment.log_model(model, "nnx", config={"size": 4})
    other = nets.Nnx(4, rngs=nnx.Rngs(2))
    for again in (loaded_as_printed(artifact, monkeypatch)["model"], tracelet.load_model(artifact, into=other)):
        np.testing.assert_array_equal(model(EXAMPLE), again(EXAMPLE))
    assert 25 == artifact_parameters(artifact)


def test_a_tree_of_arrays(experiment, monkeypatch):
    artifact = experiment.log_model({"dense": [{"w": EXAMPLE}, {"w": EXAMPLE * 2}]}, "tree")
    saved = loaded_as_printed(artifact, monkeypatch)["model"]
    np.testing.assert_array_equal(EXAMPLE * 2, saved["dense"]["1"]["w"])


def test_an_unknown_model_is_refused_and_a_format_of_the_users_own_takes_it(experiment):
    from sklearn.linear_model import LinearRegression

    class Line:
        framework, packages = "line", ("scikit-learn",)

        def save(self, model: Any, directory: Path, config: Any, processor: Any) -> SavedModel:
            (directory / "line.json").write_text(json.dumps(model.coef_.tolist()))
            return SavedModel("line.json", "model = None")

        def load(self, directory: Path, card: Any, into: Any) -> Any:
            into.coef_ = np.array(json.loads((directory / card["weights"]).read_text()))
            return into

    model = LinearRegression().fit([[1.0], [2.0]], [2.0, 4.0])
    with pytest.raises(UsageError, match=r'model_format=….*log_artifact\(path, name, type="model"\)'):
        experiment.log_model(model, "line")
    artifact = experiment.log_model(model, "line", model_format=Line())
    again = tracelet.load_model(artifact, into=LinearRegression(), model_format=Line())
    assert model.coef_.tolist() == again.coef_.tolist()
    with pytest.raises(UsageError, match="no format for"):
        tracelet.load_model(artifact)


def test_a_model_that_can_not_be_saved_leaves_nothing(experiment):
    import torch

    with pytest.raises(UsageError, match="can't be saved"):
        experiment.log_model(torch.nn.Linear(2, 2, device="meta"), "meta")
    assert [] == tracelet.load_run(experiment.run_dir).artifacts()
    assert [] == list(experiment.run_dir.glob("model-*"))


def test_a_card_of_a_stranger_is_refused(tmp_path):
    for text in ("{", "[]", '{"framework": "torch", "format": 2}', '{"framework": "os.system", "format": 1}'):
        (tmp_path / "model.json").write_text(text)
        with pytest.raises(UsageError):
            tracelet.load_model(tmp_path)
