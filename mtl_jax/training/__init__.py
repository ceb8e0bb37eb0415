"""Training: the recipe of a step, the step, the loop that repeats it, and evaluation."""

from mtl_jax.training.evaluation import Judge, judge_predictions, make_judge
from mtl_jax.training.loop import train
from mtl_jax.training.optimizer import learning_rate_schedule, make_optimizer
from mtl_jax.training.restore import restore_variables
from mtl_jax.training.step import Recipe, Steps, TrainState, init_state, make_steps, train_step

__all__ = [
    "Judge",
    "Recipe",
    "Steps",
    "TrainState",
    "init_state",
    "judge_predictions",
    "learning_rate_schedule",
    "make_judge",
    "make_optimizer",
    "make_steps",
    "restore_variables",
    "train",
    "train_step",
]
