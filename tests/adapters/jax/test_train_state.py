"""`TraceletTrainState` and `wrap`: what is recorded, in each way to run a step function on one device."""

from __future__ import annotations

import copy
import functools
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen as nn
from flax import serialization, struct
from flax.linen.fp8_ops import OVERWRITE_WITH_GRADIENT
from flax.training.dynamic_scale import DynamicScale
from flax.training.train_state import TrainState

from tests.adapters.jax import training
from tests.adapters.jax.device import Device
from tests.adapters.jax.training import STEPS, assert_same, batches, by_hand, loss_of, plain, recorded, step
from tracelet import Experiment
from tracelet.errors import UsageError
from tracelet.frameworks.jax_framework import TraceletTrainState, capture, tracked, wrap


class WithStats(TrainState):
    batch_stats: Any
    note: str = struct.field(pytree_node=False)


def scan(state: Any, batches: Any) -> Any:
    return jax.lax.scan(lambda state, batch: (step(state, batch), None), state, batches)[0]


def one_by_one(step: Any) -> Any:
    def train(state: Any, batches: Any) -> Any:
        for batch in batches:
            state = step(state, batch)
        return state

    return train


two_scans = tracked(scan)

WAYS = {
    "python": one_by_one(step),
    "jit, donated": one_by_one(jax.jit(step, donate_argnums=0)),
    "tracked": one_by_one(tracked(step)),
    "tracked, donated": one_by_one(tracked(donate_argnums=0)(step)),
    "scan": scan,
    "scan in jit": jax.jit(scan),
    "scan in tracked, donated": tracked(scan, donate_argnums=0),
    "in two scans": lambda state, batches: two_scans(two_scans(state, batches[:3]), batches[3:]),
    "remat and cond": one_by_one(
        tracked(lambda state, batch: jax.lax.cond(True, jax.checkpoint(step), lambda state, batch: state, state, batch))
    ),
    "while": tracked(
        lambda state, batches: jax.lax.fori_loop(0, STEPS, lambda i, state: step(state, batches[i]), state)
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_step_is_recorded_once_at_its_step_with_the_values_of_the_same_loop_by_hand(experiment, way):
    state = WAYS[way](wrap(plain()), batches())
    assert STEPS == int(state.step)
    expected = by_hand(plain(), batches())
    assert_same(recorded(experiment), expected)


def test_the_training_is_the_same_as_without(experiment):
    ours, theirs = wrap(plain()), plain()
    tracked_step = tracked(step, donate_argnums=0)
    bare = jax.jit(lambda state, batch: state.apply_gradients(grads=jax.grad(loss_of)(state.params, batch)))
    for batch in batches():
        ours, theirs = tracked_step(ours, batch), bare(theirs, batch)
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert jnp.allclose(mine, other, rtol=1e-6, atol=1e-7)


def test_the_loop_runs_ahead_of_the_device(experiment):
    device = Device()
    state, slow = wrap(plain()), batches()[0] + device.hold()
    train_step = tracked(step, donate_argnums=0)
    device.let_go()
    state = jax.block_until_ready(train_step(state, slow))
    slow = batches()[0] + device.hold()
    for _ in range(5):
        state = train_step(state, slow)
    assert not state.step.is_ready()
    assert 5 == experiment.status()["pending"]
    device.let_go()
    assert [1, 2, 3, 4, 5, 6] == [point for point, _ in recorded(experiment)["train/loss"]]


def test_a_step_function_is_compiled_once_for_all_steps_and_runs():
    compiled = []

    def counting(state: Any, batch: Any) -> Any:
        compiled.append(1)
        return step(state, batch)

    tx = optax.sgd(0.1)  # A static field of a state: of another optimizer Flax's own would compile anew.
    train_step, seen = tracked(counting, donate_argnums=0), []
    for _ in range(2):
        with Experiment("e", collectors=()) as experiment:
            state = wrap(TrainState.create(apply_fn=None, params=training.params(), tx=tx), experiment=experiment)
            structure = jax.tree.structure(state)
            for batch in batches():
                state = train_step(state, batch)
            seen.append(recorded(experiment)["train/loss"])
            assert structure == jax.tree.structure(state)
    assert [1] == compiled
    assert STEPS == len(seen[0])
    assert seen[0] == seen[1]


@pytest.mark.parametrize("compiler", [jax.jit, tracked], ids=["jit", "tracked"])
def test_runs_that_take_turns_in_one_function_record_each_its_own(compiler):
    train_step = compiler(step)
    runs = [Experiment(f"run {index}", collectors=()).start() for index in range(2)]
    states = [wrap(plain(), experiment=run) for run in runs]
    for batch in batches():
        states = [train_step(state, batch * (index + 1)) for index, state in enumerate(states)]
    for index, run in enumerate(runs):
        assert_same(recorded(run), by_hand(plain(), batches() * (index + 1)))
        run.stop()


def test_a_function_of_two_states_records_both(experiment):
    @tracked
    def both(pair: dict[str, Any], batch: Any) -> Any:
        return {"critic": step(pair["critic"], batch), "actor": step(step(pair["actor"], batch), batch)}

    pair = {"actor": wrap(plain(), prefix="actor"), "critic": wrap(plain(), prefix="critic")}
    for batch in batches(2):
        pair = both(pair, batch)
    found = recorded(experiment)
    assert [1, 2, 3, 4] == [point for point, _ in found["actor/loss"]]
    assert [1, 2] == [point for point, _ in found["critic/loss"]]


def test_more_steps_in_a_call_than_are_kept_leave_the_last_ones_and_a_warning(experiment, caplog):
    tracked(scan)(wrap(plain(), history=4), batches())
    found = recorded(experiment)
    assert [3, 4, 5, 6] == [point for point, _ in found["train/loss"]]
    assert (
        "6 steps were made in one call, and the metrics of the last 4 are kept: make it 6 with history=6" in caplog.text
    )


def test_members_of_an_ensemble_have_curves_of_their_own(experiment):
    states = jax.vmap(lambda scale: wrap(plain()).replace(params=jax.tree.map(lambda x: x * scale, training.params())))(
        jnp.asarray([1.0, 2.0])
    )
    train_step = tracked(jax.vmap(step, in_axes=(0, None)))
    for batch in batches(2):
        states = train_step(states, batch)
    found = recorded(experiment)
    for index, scale in enumerate((1.0, 2.0)):
        member = plain().replace(params=jax.tree.map(lambda x, scale=scale: x * scale, training.params()))
        expected = by_hand(member, batches(2))
        assert_same({n: found[f"{n}/{index}"] for n in expected}, expected)


# -- optimizers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["tracked", "in two scans"])
def test_small_steps_of_multi_steps_are_steps_and_most_move_nothing(experiment, way):
    tx = optax.MultiSteps(optax.inject_hyperparams(optax.sgd)(learning_rate=0.5), 3)
    state = TrainState.create(apply_fn=None, params=training.params(), tx=tx)
    WAYS[way](wrap(state), batches())
    found = recorded(experiment)
    expected = by_hand(state, batches(), lambda new: new.opt_state.inner_opt_state.hyperparams["learning_rate"])
    assert_same(found, expected)
    assert [True, True, False] * 2 == [value == 0 for _, value in found["train/update_norm"]]


@pytest.mark.parametrize(
    ("given", "expected"),
    [(0.25, [0.25] * 3), (optax.linear_schedule(1.0, 0.0, 4), [1.0, 0.75, 0.5]), (None, None)],
    ids=["number", "schedule", "none"],
)
def test_a_learning_rate_that_the_optimizer_does_not_tell_can_be_given(experiment, given, expected):
    tx = optax.sgd(0.25 if given is None else given)
    state = TraceletTrainState.create(apply_fn=None, params=training.params(), tx=tx, learning_rate=given)
    tracked(scan)(state, batches(3))
    found = recorded(experiment).get("train/learning_rate")
    assert expected == (found and [value for _, value in found])


def test_several_optimizers_have_a_learning_rate_each(experiment):
    sgd = optax.inject_hyperparams(optax.sgd)
    tx = optax.multi_transform({"a": sgd(learning_rate=0.5), "b": sgd(learning_rate=0.25)}, {"w": "a", "b": "b"})
    tracked(step)(wrap(TrainState.create(apply_fn=None, params=training.params(), tx=tx)), batches()[0])
    found = recorded(experiment)
    assert [0.5, 0.25] == [found[f"train/learning_rate/{place}"][0][1] for place in (0, 1)]


def test_what_is_overwritten_by_its_gradient_is_no_part_of_the_norms(experiment):
    weights = {"params": training.params(), OVERWRITE_WITH_GRADIENT: {"scale": jnp.float32(1e6)}}

    @tracked
    def train_step(state: Any, batch: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(state.params["params"], batch)
        grads = {"params": grads, OVERWRITE_WITH_GRADIENT: {"scale": jnp.float32(2e6)}}
        return state.apply_gradients(grads=grads, loss=loss)

    state = TraceletTrainState.create(apply_fn=None, params=weights, tx=training.optimizer())
    for batch in batches():
        state = train_step(state, batch)
    assert 2e6 == float(state.params[OVERWRITE_WITH_GRADIENT]["scale"])
    assert_same(recorded(experiment), by_hand(plain(), batches()))


class Scaled(TrainState):
    dynamic_scale: DynamicScale


def test_a_step_that_dynamic_scaling_takes_back_is_recorded_with_what_was_tried(experiment):
    @tracked(donate_argnums=0)
    def train_step(state: Any, batch: Any) -> Any:
        scale, finite, loss, grads = state.dynamic_scale.value_and_grad(loss_of)(state.params, batch)
        new = state.apply_gradients(grads=grads, loss=loss, dynamic_scale=scale, finite=finite)
        keep = functools.partial(jax.tree.map, lambda a, b: jnp.where(finite, a, b))
        return new.replace(params=keep(new.params, state.params), opt_state=keep(new.opt_state, state.opt_state))

    state = wrap(
        Scaled.create(
            apply_fn=None, params=training.params(), tx=optax.sgd(0.1), dynamic_scale=DynamicScale(scale=1024.0)
        )
    )
    given = batches(3).at[1, 0, 0].set(jnp.inf)
    for batch in given:
        state = train_step(state, batch)
    found = recorded(experiment)
    assert [(1, 1.0), (2, 0.0), (3, 1.0)] == found["train/finite"]
    assert [1024.0, 512.0, 512.0] == [value for _, value in found["train/loss_scale"]]
    assert not jnp.isfinite(found["train/grad_norm"][1][1])
    assert jnp.all(jnp.isfinite(jnp.asarray(found["train/param_norm"])[2]))


def test_a_step_that_a_whole_state_is_chosen_against_is_recorded_only_if_it_counts(experiment):
    @tracked
    def train_step(state: Any, batch: Any) -> Any:
        new = step(state, batch)
        return jax.tree.map(lambda a, b: jnp.where(jnp.isfinite(new.params["w"]).all(), a, b), new, state)

    state = wrap(plain())
    for batch in batches(3).at[1, 0, 0].set(jnp.nan):
        state = train_step(state, batch)
    found = recorded(experiment)
    assert [1, 2] == [point for point, _ in found["train/loss"]]
    assert jnp.all(jnp.isfinite(jnp.asarray(found["train/loss"])))


# -- metrics -----------------------------------------------------------------------------------------------------------


def test_numbers_of_any_type_keep_their_value(experiment):
    @tracked
    def train_step(state: Any, batch: Any) -> Any:
        grads = jax.grad(loss_of)(state.params, batch)
        more = {"half": jnp.bfloat16(0.1), "tokens": jnp.int32(2**31 - 1), "ok": jnp.bool_(True), "host": 2}
        return state.apply_gradients(grads=grads, more=more, one=jnp.ones((1, 1)))

    train_step(wrap(plain(), measure=()), batches()[0])
    found = recorded(experiment)
    values = {"more/half": 0.10009765625, "more/tokens": 2.0**31 - 1, "more/ok": 1.0, "more/host": 2.0, "one": 1.0}
    assert {f"train/{name}": [(1, value)] for name, value in values.items()} == found


def test_with_64_bits_nothing_is_cut(experiment):
    with jax.enable_x64(True):
        tracked(lambda state: state.apply_gradients(grads=state.params, exact=jnp.float64(0.1)))(
            wrap(TrainState.create(apply_fn=None, params={"w": jnp.float64(3)}, tx=optax.sgd(0.1)))
        )
        assert [(1, 0.1)] == recorded(experiment)["train/exact"]


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (jnp.ones(3), r"'train/bad' is float32\[3\], and a metric is one real number"),
        ("text", "'train/bad' is no number but str"),
        (1j, "'train/bad' is complex64"),
    ],
    ids=["vector", "text", "complex"],
)
def test_a_metric_that_is_none_is_refused_while_the_function_is_traced(experiment, metric, message):
    with pytest.raises(UsageError, match=message):
        tracked(lambda state: state.apply_gradients(grads=state.params, bad=metric))(wrap(plain()))


def test_many_metrics_are_fine_but_in_a_scan_they_need_room(experiment):
    many = {f"m{index:02}": float(index) for index in range(16)}

    def body(state: Any, _: Any) -> Any:
        return state.apply_gradients(grads=state.params, **many), None

    state = tracked(lambda state: body(state, None)[0])(wrap(plain(), measure=()))
    with pytest.raises(
        UsageError, match=r"need 16 words of 32 bits, and in a scan there is room for 14.*max_metrics=16"
    ):
        tracked(lambda state: jax.lax.scan(body, state, length=2)[0])(state)
    tracked(lambda state: jax.lax.scan(body, state, length=2)[0])(wrap(state, measure=(), max_metrics=16))
    expected = {f"train/{name}": [(step, value) for step in (1, 2, 3)] for name, value in many.items()}
    assert expected == recorded(experiment)


def test_options_that_make_no_sense_are_refused():
    for options in ({"measure": ("norm",)}, {"history": 0}, {"max_metrics": 0}):
        with pytest.raises(UsageError, match="measure has some of grad_norm"):
            wrap(plain(), **options)


def test_what_the_function_gives_is_recorded_unless_the_state_has_it(experiment):
    @tracked
    def train_step(state: Any, batch: Any) -> Any:
        capture({"inside": jnp.sum(batch)})
        loss, grads = jax.value_and_grad(loss_of)(state.params, batch)
        new = state.apply_gradients(grads=grads, loss=loss)
        return new, {"loss": loss, "accuracy": loss * 2, "logits": batch}

    state = wrap(plain(), measure=())
    for batch in batches(2):
        state, metrics = train_step(state, batch)
    assert (8, 3) == metrics["logits"].shape
    found = recorded(experiment)
    assert {"train/inside", "train/loss", "train/accuracy"} == found.keys()
    for points in found.values():
        assert [1, 2] == [point for point, _ in points]
    assert [2 * value for _, value in found["train/loss"]] == [value for _, value in found["train/accuracy"]]


# -- the state is a state ----------------------------------------------------------------------------------------------


@pytest.fixture
def custom() -> WithStats:
    extra = {"batch_stats": {"mean": jnp.ones(2)}, "note": "mine"}
    return WithStats.create(apply_fn=training.apply, params=training.params(), tx=training.optimizer(), **extra)


def test_a_subclass_keeps_its_fields_methods_and_class(experiment, custom):
    state = wrap(custom)
    assert isinstance(state, WithStats)
    assert type(state) is type(wrap(custom))
    assert state is not wrap(state)

    @tracked
    def train_step(state: Any, batch: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(state.params, batch)
        return state.apply_gradients(grads=grads, loss=loss, batch_stats={"mean": state.batch_stats["mean"] + 1})

    for batch in batches():
        state = train_step(state, batch)
    assert ([7.0, 7.0], "mine") == (state.batch_stats["mean"].tolist(), state.note)
    assert_same(recorded(experiment), by_hand(plain(), batches()))


def test_users_can_inherit_from_it(experiment):
    class Mine(TraceletTrainState):
        ema: Any

        def apply_gradients(self, *, grads: Any, decay: float = 0.5, **values: Any) -> Any:
            new = super().apply_gradients(grads=grads, **values)
            return new.replace(ema=jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, self.ema, new.params))

    state = Mine.create(apply_fn=None, params=training.params(), tx=training.optimizer(), ema=training.params())
    train_step = tracked(jax.jit(step))
    for batch in batches():
        state = train_step(state, batch)
    assert ["ema", "opt_state", "params", "step"] == sorted(serialization.to_state_dict(state))
    assert not jnp.allclose(state.ema["w"], state.params["w"])
    assert_same(recorded(experiment), by_hand(plain(), batches()))


def test_it_has_the_leaves_and_paths_of_the_state_that_it_wraps(custom):
    for ours, theirs in ((wrap(custom), custom), (wrap(plain()), plain())):
        paths = [
            [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(t)] for t in (ours, theirs)
        ]
        assert paths[0] == paths[1]
        shapes = [jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree) for tree in (ours, theirs)]
        assert jax.tree.leaves(shapes[0]) == jax.tree.leaves(shapes[1])
        assert jax.tree.structure(ours) == jax.tree.structure(jax.eval_shape(lambda state: state, ours))
        assert jax.tree.structure(ours) == jax.tree.structure(jax.eval_shape(tracked(step), ours, batches()[0]))
        doubled = jax.tree.map(lambda a, b: a + b, ours, ours)
        assert type(doubled) is type(ours)
        assert jnp.array_equal(doubled.params["w"], 2 * theirs.params["w"])


def test_partition_specs_are_read_off_it():
    initial = nn.with_partitioning(nn.initializers.ones, ("rows", None))
    layer = nn.Dense(2, kernel_init=initial)

    def create(key: Any) -> Any:
        weights = layer.init(key, jnp.ones((1, 4)))["params"]
        return TraceletTrainState.create(apply_fn=layer.apply, params=weights, tx=optax.adam(0.1))

    specs = nn.get_partition_spec(jax.eval_shape(create, jax.random.key(0)))
    assert jax.sharding.PartitionSpec("rows", None) == specs.params["kernel"]
    assert jax.sharding.PartitionSpec() == specs.step


def _as_it_is(updates: Any, state: Any, params: Any = None) -> Any:
    return updates, state


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda state: pickle.loads(pickle.dumps(state))])
def test_a_copy_records_for_the_same_experiment(experiment, copied):
    tx = optax.GradientTransformation(optax.init_empty_state, _as_it_is)
    state = wrap(
        TrainState.create(apply_fn=None, params=training.params(), tx=tx), experiment=experiment, prefix="mine"
    )
    step(copied(state), batches()[0])
    assert [1] == [point for point, _ in recorded(experiment)["mine/loss"]]


def test_without_an_experiment_the_training_goes_on_and_one_warning_says_so(caplog):
    state, train_step = wrap(plain()), tracked(step)
    for batch in batches():
        state = train_step(state, batch)
    assert STEPS == int(state.step)
    assert 1 == caplog.text.count("no experiment is running")


def test_a_state_that_was_made_inside_of_a_tracked_function_records_too(experiment):
    @tracked
    def train(batches: Any) -> Any:
        return scan(wrap(plain()).replace(step=jnp.int32(0)), batches)

    state = train(batches())
    state = tracked(step)(state, batches()[0])
    assert [*range(1, STEPS + 2)] == [point for point, _ in recorded(experiment)["train/loss"]]
