from ._version import __version__ as __version__
from .learner.evaluation import Evaluation as Evaluation
from .run_folder.optimizer_files import load_optimizer as load_optimizer
from .run_folder.policy_files import (
    load_policy as load_policy,
)
from .run_folder.trained_policy import (
    TrainedPolicy as TrainedPolicy,
)
from .training.api import Result as Result, train as train
from .training.callbacks import Callback as Callback, Run as Run
