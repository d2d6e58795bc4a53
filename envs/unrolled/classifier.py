"""A small image classifier, and the base of problems whose inner problem trains it."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.envs.rollout.environment import Problem
from pes_rl.envs.unrolled.images import NUM_CLASSES, Images, ImageSet, load_images
from pes_rl.envs.unrolled.problem import FinalLoss, UnrolledProblem

Layer = tuple[jax.Array, jax.Array]  # weights [inputs, units], bias [units]
Network = tuple[Layer, ...]
# Key data of the episode, step t, the network, its momenta.
TrainingState = tuple[jax.Array, jax.Array, Network, Network]
Batch = tuple[jax.Array, jax.Array]  # inputs [batch, inputs], labels [batch]
Masks = tuple[jax.Array, ...] | None  # for each hidden layer, a factor for each unit

Objective = Literal["training-loss", "validation-loss", "validation-accuracy"]


@dataclass(frozen=True)
class ClassifierProblem(UnrolledProblem):
    """Training of a ReLU network with one minibatch per step.

    The loss of a step is measured after it, on another new minibatch. Differences from
    the published code: minibatches are drawn with replacement, because a permutation of
    the whole set takes longer than the step; and each antithetic pair has its own
    initial network and minibatches, which there are the same for all particles. The
    mean of the estimates is the same, and the errors of the pairs are independent.

    Attributes:
        data: Images to classify: `mnist`, `fashion-mnist`, `cifar-10` (original files),
            `digits` (scikit-learn's, 8 x 8) or `generated` (8 x 8, needs nothing).
        data_folder: Folder of the original files; without one, MNIST and Fashion-MNIST
            are downloaded.
        image_size: Rows and columns that original images are made smaller to, by means
            over areas; None leaves them at 28 (MNIST, Fashion-MNIST) or 32.
        objective: Cross-entropy on training or on validation images, or minus the
            accuracy on validation images, which has no useful derivative.
        batch_size: Images in a minibatch.
        final_loss: Use the last loss of an episode as its loss (`FinalLoss`), measured
            on the same minibatch at every step.
    """

    data: ImageSet = "generated"
    data_folder: str | None = None
    image_size: int | None = None
    objective: Objective = "training-loss"
    batch_size: int = 100
    final_loss: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.images  # Read here, so that a bad file is an error at construction.

    @property
    def images(self) -> Images:
        """The data set."""
        return load_images(self.data, self.data_folder, self.image_size)

    @property
    def system(self) -> Problem:
        return FinalLoss(self) if self.final_loss else self

    @property
    def differentiable(self) -> bool:
        return self.objective != "validation-accuracy"

    @property
    def diverged_loss(self) -> float:
        """Loss of random guesses for a whole episode; 0 where accuracy is measured."""
        if self.objective == "validation-accuracy":
            return 0.0
        steps = 1 if self.final_loss else self.evaluation_steps
        return steps * math.log(NUM_CLASSES)

    def layer_sizes(self, hidden_sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Number of units of each layer, from the pixels to the classes."""
        return (self.images.num_pixels, *hidden_sizes, NUM_CLASSES)

    def start_training(
        self, key: jax.Array, hidden_sizes: tuple[int, ...]
    ) -> TrainingState:
        """State before the first step of SGD with momentum."""
        key_data = jax.random.key_data(key)
        network = first_network(key_data, self.layer_sizes(hidden_sizes))
        return key_data, jnp.int32(0), network, jax.tree.map(jnp.zeros_like, network)

    def minibatches(self, key_data: jax.Array, t: jax.Array) -> tuple[Batch, Batch]:
        """The minibatches of step t: for its gradient, and for its loss."""
        key = jax.random.wrap_key_data(key_data)
        learn, test = self._choices(key, t + 1)
        if self.final_loss:
            _, test = self._choices(key, self.evaluation_steps + 1)
        part = "training" if self.objective == "training-loss" else "validation"
        return self.images.batch(learn, "training"), self.images.batch(test, part)

    def _choices(self, key: jax.Array, number: int | jax.Array) -> jax.Array:
        """Random numbers that choose two minibatches, [2, batch] of uint32."""
        key = jax.random.fold_in(key, number)
        return jax.random.bits(key, (2, self.batch_size), "uint32")

    def measure(self, network: Network, batch: Batch, masks: Masks = None) -> jax.Array:
        """The objective on a minibatch."""
        inputs, labels = batch
        logits = apply_network(network, inputs, masks)
        if self.objective == "validation-accuracy":
            right = logits.argmax(1).astype(labels.dtype) == labels
            return -right.astype(logits.dtype).mean()
        return self.mean_loss(cross_entropy(logits, labels))

    def mean_loss(self, losses: jax.Array) -> jax.Array:
        """Loss of a minibatch from the cross-entropies of its images."""
        return losses.mean()


def first_network(key_data: jax.Array, sizes: tuple[int, ...]) -> Network:
    """Initial network of the episode with this key; see `init_network`."""
    key = jax.random.fold_in(jax.random.wrap_key_data(key_data), 0)
    return init_network(key, sizes)


def init_network(key: jax.Array, sizes: tuple[int, ...]) -> Network:
    """Weights from N(0, 1 / inputs) truncated at two standard deviations, biases 0."""
    shapes = list(pairwise(sizes))
    # One draw for all layers: with one for each, XLA compiles many times longer.
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    normal = jax.random.truncated_normal(key, -2, 2, (int(ends[-1]),))
    parts = zip(jnp.split(normal, ends[:-1]), shapes, strict=True)
    weights = [part.reshape(shape) / math.sqrt(shape[0]) for part, shape in parts]
    return tuple((w, jnp.zeros(w.shape[1])) for w in weights)


def training_gradient(network: Network, batch: Batch, masks: Masks = None) -> Network:
    """Gradient of a minibatch's mean cross-entropy with respect to the weights."""
    inputs, labels = batch

    def loss(network: Network) -> jax.Array:
        logits = apply_network(network, inputs, masks)
        return cross_entropy(logits, labels).mean()

    return jax.grad(loss)(network)


def apply_network(
    network: Network, inputs: jax.Array, masks: Masks = None
) -> jax.Array:
    """Output of a ReLU network with a linear last layer.

    Args:
        network: The layers.
        inputs: # shape=(batch, inputs)
        masks: Factors of the units' sums, for each hidden layer.

    Returns:
        # shape=(batch, outputs)
    """
    x = inputs
    for i, (weights, bias) in enumerate(network):
        x = x @ weights + bias[None]
        if i < len(network) - 1:
            x = jax.nn.relu(x if masks is None else x * masks[i][None])
    return x


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy of each row, in nats.

    Returns:
        # shape=(batch,)
    """
    chosen = jnp.take_along_axis(logits, labels[:, None], 1)[:, 0]
    return jax.nn.logsumexp(logits, axis=1) - chosen
