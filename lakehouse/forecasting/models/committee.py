"""The committee of small networks inside `keras_network`: its Keras model, and its training as one TensorFlow graph.

Keras's own `fit` traces and dispatches anew for every network, which on a short history costs more than the learning. Here the
whole training is one loop inside a graph, traced once for each shape and used again by every refit. Inputs, truth and weights
go in as tensors, and the trained weights come out; the Keras model is what is saved and what predicts.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

MEMBERS = 4  # networks whose quantiles are averaged
DROPOUT = 0.1
LAYERS = ("slot", "day", "hidden_of_slot", "hidden_of_day", "quantiles")
LEAST_RATE = 5e-5


class Shape(NamedTuple):
    """Slots a day, inputs a slot, quantiles, and the widths of the slot's and the day's projections."""

    slots: int
    inputs: int
    outputs: int
    wide: int
    context: int

    @classmethod
    def of(cls, slots: int, inputs: int, outputs: int, *, small: bool) -> Shape:
        """The widths that suit a short history (`small`) or a long one."""
        return cls(slots, inputs, outputs, *((12, 24) if small else (24, 64)))

    def weights(self) -> list[tuple[int, ...]]:
        """Shapes of kernel and bias of each of `LAYERS`, members first; the decoder's second part has no bias of its own."""
        m, w, c = MEMBERS, self.wide, self.context
        return [
            *((m, self.inputs, w), (m, w)),
            *((m, self.slots * w, c), (m, c)),
            *((m, w, 2 * w), (m, 2 * w)),
            *((m, c, 2 * w), (m, 2 * w)),
            *((m, 2 * w, self.outputs), (m, self.outputs)),
        ]


def build(keras: Any, shape: Shape) -> Any:
    """The committee: (days, slots, inputs) to (days, slots, members, quantiles); each member has weights of its own."""
    layers, m = keras.layers, MEMBERS
    wide, context, slots = shape.wide, shape.context, shape.slots

    def dense(name: str, equation: str, out: tuple[int, ...], bias: str, fans: int, activation: str | None = None) -> Any:
        # Glorot's uniform for each member by itself: Keras would count the members' axis among the fans
        limit = (6 / fans) ** 0.5
        start = keras.initializers.RandomUniform(-limit, limit)
        return layers.EinsumDense(equation, out, activation=activation, bias_axes=bias, kernel_initializer=start, name=name)

    x = keras.Input((slots, shape.inputs))
    local = dense("slot", "bsf,mfw->bmsw", (m, slots, wide), "mw", shape.inputs + wide, "relu")(x)
    whole = layers.Dropout(DROPOUT)(layers.Reshape((m, slots * wide))(local))
    day = dense("day", "bmk,mkc->bmc", (m, context), "mc", slots * wide + context, "relu")(whole)
    joined = wide + context + 2 * wide
    # the slot and its day together, as a layer over both of them joined would have it
    of_slot = dense("hidden_of_slot", "bmsw,mwh->bmsh", (m, slots, 2 * wide), "mh", joined)(local)
    of_day = layers.Reshape((m, 1, 2 * wide))(dense("hidden_of_day", "bmc,mch->bmh", (m, 2 * wide), "mh", joined)(day))
    z = layers.Dropout(DROPOUT)(layers.ReLU()(layers.Add()([of_slot, of_day])))
    last = dense("quantiles", "bmsh,mhq->bsmq", (slots, m, shape.outputs), "mq", 2 * wide + shape.outputs)
    return keras.Model(x, last(z))


def train(network: Any, x: np.ndarray, y: np.ndarray, quantiles: tuple[float, ...], **how: Any) -> None:
    """Trains a committee in place with the pinball loss, each member on its own error (Adam; the rate falls like a cosine).

    Args:
        network: made by `build`, or loaded.
        x: (days, slots, inputs), float32.
        y: (days, slots), float32.
        quantiles: probabilities of the outputs.
        **how: `batch` days a step, `steps` in all, the first learning `rate`, and the `seed` of order and dropout.
    """
    batch, steps, seed = how["batch"], how["steps"], how["seed"]
    random = np.random.default_rng(seed)
    rounds = -(-steps * batch // len(x))
    order = np.concatenate([random.permutation(len(x)) for _ in range(rounds)])[: steps * batch].reshape(steps, batch)
    rates = how["rate"] * 0.5 * (1 + np.cos(np.pi * np.arange(steps) / steps)) + LEAST_RATE
    flat = np.concatenate([w.ravel() for layer in LAYERS for w in network.get_layer(layer).get_weights()])
    wide, context = (int(network.get_layer(name).kernel.shape[-1]) for name in ("slot", "day"))
    shape = Shape(x.shape[1], x.shape[2], len(quantiles), wide, context)
    run = _graph(shape, quantiles)
    trained = run(flat, x, y, order.astype("int32"), rates.astype("float32"), np.int32(seed)).numpy()
    for layer in LAYERS:
        given = []
        for before in network.get_layer(layer).get_weights():
            given.append(trained[: before.size].reshape(before.shape))
            trained = trained[before.size :]
        network.get_layer(layer).set_weights(given)


@lru_cache(maxsize=8)
def _graph(shape: Shape, quantiles: tuple[float, ...]) -> Any:
    """A traced function (weights, x, y, order, rates, seed) → weights after all steps."""
    import tensorflow as tf

    shapes = shape.weights()
    sizes = [int(np.prod(s)) for s in shapes]
    levels = tf.constant(quantiles, tf.float32)
    m, s, wide = MEMBERS, shape.slots, shape.wide

    def dropped(values: Any, seed: Any, step: Any, layer: int) -> Any:
        draw = tf.random.stateless_uniform(tf.shape(values), tf.stack([seed, 2 * step + layer]))
        return tf.where(draw >= DROPOUT, values / (1 - DROPOUT), 0.0)

    def loss(flat: Any, x: Any, y: Any, seed: Any, step: Any) -> Any:
        """As `build` computes it, members first throughout: no axis has to be moved."""
        parts = [tf.reshape(part, size) for part, size in zip(tf.split(flat, sizes), shapes, strict=True)]
        biases = [b[:, None, :] for b in parts[1::2]]
        slot, day, of_slot, of_day, last = parts[::2]
        rows = tf.reshape(x, (1, -1, shape.inputs))
        local = tf.nn.relu(tf.matmul(rows, slot) + biases[0])
        whole = dropped(tf.reshape(local, (m, -1, s * wide)), seed, step, 0)
        context = tf.nn.relu(tf.matmul(whole, day) + biases[1])
        both = tf.reshape(tf.matmul(local, of_slot) + biases[2], (m, -1, s, 2 * wide))
        both += (tf.matmul(context, of_day) + biases[3])[:, :, None, :]
        z = tf.reshape(dropped(tf.nn.relu(both), seed, step, 1), (m, -1, 2 * wide))
        error = tf.reshape(y, (1, -1, 1)) - (tf.matmul(z, last) + biases[4])
        return m * tf.reduce_mean(tf.maximum(levels * error, (levels - 1) * error))

    floats, one = tf.float32, tf.TensorSpec((), tf.int32)
    signature = [
        tf.TensorSpec((sum(sizes),), floats),
        tf.TensorSpec((None, s, shape.inputs), floats),
        tf.TensorSpec((None, s), floats),
        tf.TensorSpec((None, None), tf.int32),
        tf.TensorSpec((None,), floats),
        one,
    ]

    @tf.function(input_signature=signature, autograph=False)
    def run(flat: Any, x: Any, y: Any, order: Any, rates: Any, seed: Any) -> Any:
        def step(n: Any, weights: Any, mean: Any, square: Any) -> Any:
            rows = order[n]
            with tf.GradientTape() as tape:
                tape.watch(weights)
                value = loss(weights, tf.gather(x, rows), tf.gather(y, rows), seed, n)
            slope = tape.gradient(value, weights)
            mean = 0.9 * mean + 0.1 * slope
            square = 0.999 * square + 0.001 * slope * slope
            age = tf.cast(n + 1, floats)
            rate = rates[n] * tf.sqrt(1 - 0.999**age) / (1 - 0.9**age)
            return n + 1, weights - rate * mean / (tf.sqrt(square) + 1e-7), mean, square

        zeros = tf.zeros_like(flat)
        state = (tf.constant(0), flat, zeros, zeros)
        return tf.while_loop(lambda n, *_: n < tf.shape(rates)[0], step, state, parallel_iterations=1)[1]

    return run
