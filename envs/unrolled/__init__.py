"""Unrolled computation graphs other than policies in environments, by name."""

from pes_rl.envs.unrolled.influence_balancing import InfluenceBalancing
from pes_rl.envs.unrolled.l2_regression import L2Regression
from pes_rl.envs.unrolled.learned_optimizer import LearnedOptimizer
from pes_rl.envs.unrolled.lr_schedule import LearningRateSchedule
from pes_rl.envs.unrolled.lstm import CharacterLSTM
from pes_rl.envs.unrolled.mlp_hyperparameters import MLPHyperparameters
from pes_rl.envs.unrolled.problem import UnrolledProblem as UnrolledProblem
from pes_rl.envs.unrolled.toy_regression import ToyRegression

PROBLEMS: dict[str, type[UnrolledProblem]] = {
    "influence-balancing": InfluenceBalancing,
    "l2-regression": L2Regression,
    "learned-optimizer": LearnedOptimizer,
    "lr-schedule": LearningRateSchedule,
    "lstm": CharacterLSTM,
    "mlp-hyperparameters": MLPHyperparameters,
    "toy-regression": ToyRegression,
}
