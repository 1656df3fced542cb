"""Tables and images of predictions."""

from __future__ import annotations

from typing import Any

import pytest

from tests.adapters.keras.reading import only_run, points
from tests.adapters.keras.workers import KerasProcess
from tracelet import MetricType
from tracelet.errors import UsageError


def fit(model: Any, targets: Any = None, **options: Any) -> dict[str, list[float]]:
    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback, TraceletPredictions

    images, labels = models.digits()
    sample, wanted = models.validation()
    given = {"images": sample[:3].reshape(-1, 8, 8)} if options.pop("with_images", False) else {}
    y = {"labels": wanted[:3], None: None}[targets] if isinstance(targets, str) or targets is None else targets
    predictions = TraceletPredictions(sample[:3], y, **given, **options)
    callbacks = [TraceletCallback(), predictions]
    history = model.fit(
        images, labels, batch_size=16, epochs=4, validation_data=models.validation(), callbacks=callbacks, verbose=0
    )
    return dict(history.history)


def classify(**options: Any) -> Any:
    """Returns `History`, and what the trained model says."""
    from tests.adapters.keras import models

    model = models.network("adam")
    history = fit(model, "labels", **options)
    sample, labels = models.validation()
    return history, model.predict(sample[:3], verbose=0).tolist(), labels[:3].tolist()


def tables() -> list[Any]:
    return only_run().records(MetricType.TABLE)


def test_a_classifier_has_a_row_with_class_and_score_for_each_sample(keras: KerasProcess):
    _, outputs, labels = keras.run(classify)
    found = tables()
    assert [("val/predictions", step) for step in (8, 16, 24, 32)] == [(t.name, t.iteration) for t in found]
    last = found[-1].value
    assert ["sample", "target", "prediction", "score"] == last["columns"]
    wanted = [[i, labels[i], max(range(10), key=out.__getitem__), max(out)] for i, out in enumerate(outputs)]
    assert wanted == [[*row[:3], pytest.approx(row[3])] for row in last["rows"]]


def test_names_of_classes_and_images_and_a_frequency(keras: KerasProcess):
    names = [f"digit {index}" for index in range(10)]
    _, outputs, labels = keras.run(classify, class_names=names, with_images=True, every=2)
    found = tables()
    assert [16, 32] == [table.iteration for table in found]
    row = found[-1].value["rows"][0]
    assert [f"digit {labels[0]}", f"digit {outputs[0].index(max(outputs[0]))}"] == row[1:3]
    images = only_run().records(MetricType.IMAGE)
    assert [(f"val/predictions/{i}", step) for step in (16, 32) for i in range(3)] == [
        (image.name, image.iteration) for image in images
    ]
    assert images[3].metadata["caption"].startswith(f"target {row[1]}, prediction {row[2]}, score ")


def regress() -> None:
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    fit(model, [0.5, 1.5, 2.5])


def test_a_regression_has_its_numbers(keras: KerasProcess):
    keras.run(regress)
    table = tables()[-1].value
    assert ["sample", "target", "prediction"] == table["columns"]
    assert [0.5, 1.5, 2.5] == [row[1] for row in table["rows"]]
    assert all(isinstance(row[2], float) for row in table["rows"])


def predict_two_outputs() -> None:
    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback, TraceletPredictions

    images, labels = models.digits()
    predictions = TraceletPredictions(images[:2], {"digit": labels[:2]})
    models.two_headed().fit(
        images,
        {"digit": labels, "parity": labels % 2},
        batch_size=16,
        callbacks=[TraceletCallback(), predictions],
        verbose=0,
    )


def test_each_output_has_its_columns(keras: KerasProcess):
    keras.run(predict_two_outputs)
    columns = tables()[0].value["columns"]
    assert ["sample", "digit/target", "digit/prediction", "digit/score", "parity/prediction"] == columns


def test_predicting_does_not_change_the_training(keras: KerasProcess):
    history, *_ = keras.run(classify)
    wanted = keras.run(history_alone)
    assert wanted == history
    assert wanted["loss"] == [value for _, value in points(only_run(), "train/loss")]


def history_alone() -> dict[str, list[float]]:
    from tests.adapters.keras import models

    images, labels = models.digits()
    history = models.network("adam").fit(
        images, labels, batch_size=16, epochs=4, validation_data=models.validation(), verbose=0
    )
    return dict(history.history)


def predict_what_does_not_fit() -> int:
    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback, TraceletPredictions

    images, labels = models.digits()
    callbacks = [TraceletCallback(), TraceletPredictions(images[:, :5])]
    return len(models.network().fit(images, labels, epochs=2, callbacks=callbacks, verbose=0).history["loss"])


def test_samples_that_do_not_fit_stop_no_training(keras: KerasProcess):
    assert 2 == keras.run(predict_what_does_not_fit)
    assert [] == tables()


def make_with(every: int) -> None:
    from tracelet_keras import TraceletPredictions

    TraceletPredictions([[0.0]], every=every)


def test_a_wrong_frequency_raises_at_construction(keras: KerasProcess):
    with pytest.raises(UsageError, match="every is a number of epochs"):
        keras.run(make_with, 0)
