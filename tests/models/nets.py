"""Models of the tests' own, that the printed code can import."""

from __future__ import annotations

import keras
import torch
from flax import nnx
from lightning.pytorch import LightningModule

PASSWORD = "correct-horse-7"


class Tied(torch.nn.Module):
    """Shared, strided, half-precision weights, and a buffer."""

    def __init__(self, words: int = 7, size: int = 4) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(words, size)
        self.head = torch.nn.Linear(size, words, bias=False)
        self.head.weight = self.embedding.weight
        self.gain = torch.nn.Parameter(torch.rand(size, dtype=torch.bfloat16))
        self.register_buffer("seen", torch.arange(12).reshape(3, 4).T)
        whole = torch.rand(8)
        self.register_buffer("first", whole[:4])
        self.register_buffer("second", whole[2:6])

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(words) * self.gain.float() + self.first + self.second)


class Lit(LightningModule):
    def __init__(self, size: int, rate: float = 0.1, callback: object = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Linear(size, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


@keras.saving.register_keras_serializable("tests")
class Doubled(keras.Model):
    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(2)

    def build(self, shape: object) -> None:
        self.dense.build(shape)
        self.built = True

    def call(self, x: object) -> object:
        return self.dense(x) * 2


class Nnx(nnx.Module):
    def __init__(self, size: int, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([nnx.Linear(size, size, rngs=rngs), nnx.Linear(size, 1, rngs=rngs)])
        self.dropout = nnx.Dropout(0.0, rngs=rngs)

    def __call__(self, x: object) -> object:
        for layer in self.layers:
            x = layer(x)
        return self.dropout(x)
