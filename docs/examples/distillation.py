"""Trains a small network on few labels and on the answers of a larger one (Haiku).

python docs/examples/distillation.py

The student has three tasks: the labels of 30 points, the teacher's probabilities for 600 points
without labels, and the teacher's logits for the same points, whose loss is far larger. Every fourth
step computes new weights from three gradients; the steps between make one backward pass.
"""

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from mtl_jax.weighting import TITLES, combine_tasks, task_gradients, weighted_gradient

SHOWN = ("equal", "uw", "mgda", "imtl_g", "nash", "upgrad")
CLASSES, EVERY, SEEDS = 3, 4, 3
TEACHER, STUDENT = (
    hk.without_apply_rng(hk.transform(lambda x, w=width: hk.nets.MLP([w, w, CLASSES])(x)))
    for width in (64, 12)
)


def make_data(key: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Returns points f32[count, 2] on the three noisy arms of a spiral, and their classes."""
    keys = jax.random.split(key, 3)
    classes = jax.random.randint(keys[0], (count,), 0, CLASSES)
    radius = jax.random.uniform(keys[1], (count,), minval=0.2, maxval=2.0)
    angle = (
        2.5 * radius + 2 * jnp.pi * classes / CLASSES + 0.3 * jax.random.normal(keys[2], (count,))
    )
    return radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1), classes


def by_labels(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """Returns the mean cross-entropy."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, classes))


def train_teacher(steps: int = 500) -> hk.Params:
    """Returns the parameters of a network that has seen the labels of 2000 points."""
    x, classes = make_data(jax.random.key(0), 2000)
    params, adam = TEACHER.init(jax.random.key(1), x), optax.adam(1e-2)

    def step(carry: tuple, _: None) -> tuple:
        params, state = carry
        gradient = jax.grad(lambda params: by_labels(TEACHER.apply(params, x), classes))(params)
        updates, state = adam.update(gradient, state)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, adam.init(params)), length=steps)[0][0]


def train(method: str, teacher: hk.Params, seed: jax.Array, steps: int) -> jax.Array:
    """Returns the student's accuracy on new points after training."""
    keys = jax.random.split(jax.random.key(seed), 3)
    (few, classes), (many, _) = make_data(keys[0], 30), make_data(keys[1], 600)
    answers = TEACHER.apply(teacher, many)
    params = STUDENT.init(keys[2], few)
    weigh = combine_tasks(method, num_tasks=3, every=EVERY, seed=seed)
    tx = optax.chain(weigh, optax.adam(1e-2))

    def losses_of(params: hk.Params) -> list[jax.Array]:
        own = STUDENT.apply(params, many)
        soft = jnp.mean(optax.softmax_cross_entropy(own, jax.nn.softmax(answers)))
        return [
            by_labels(STUDENT.apply(params, few), classes),
            soft,
            jnp.mean((own - answers) ** 2),
        ]

    def full(params: hk.Params, state: tuple) -> tuple:
        losses, gradients = task_gradients(losses_of, params)
        updates, state = tx.update(gradients, state, params, losses=losses)
        return optax.apply_updates(params, updates), state

    def cheap(_: int, carry: tuple) -> tuple:
        params, state = carry
        losses, gradient = weighted_gradient(losses_of, params, state[0].weights)
        updates, state = tx.update(gradient, state, params, losses=losses, combined=True)
        return optax.apply_updates(params, updates), state

    def cycle(carry: tuple, _: None) -> tuple:
        return jax.lax.fori_loop(1, EVERY, cheap, full(*carry)), None

    (params, _), _ = jax.lax.scan(cycle, (params, tx.init(params)), length=steps // EVERY)
    x, classes = make_data(jax.random.key(2), 2000)
    return jnp.mean(jnp.argmax(STUDENT.apply(params, x), axis=1) == classes)


def accuracies(method: str, teacher: hk.Params, steps: int = 200) -> jax.Array:
    """Returns the accuracies f32[SEEDS] of students that start from different seeds."""
    run = jax.vmap(lambda seed: train(method, teacher, seed, steps))
    return jax.jit(run)(jnp.arange(SEEDS))


if __name__ == "__main__":
    teacher = train_teacher()
    print(f"{'':16} accuracy in %, {SEEDS} seeds")
    for method in SHOWN:
        found = 100 * accuracies(method, teacher)
        print(f"{TITLES[method]:16}", *(f"{x:6.1f}" for x in found))
