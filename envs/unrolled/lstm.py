"""A character LSTM on one sequence, from the PES paper's study of variance.

theta is the whole network: an embedding of each token in 5 numbers, an LSTM of 5 units
and a linear map to the vocabulary. A step reads a token, and its loss is the
cross-entropy of the next one, in nats; the loss of an episode is the sum over the T + 1
tokens of the sequence. The correlation between the gradients of the steps decides how
the variance of PES grows with the number of unrolls, so there are three kinds of
sequence.
"""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from pes_rl.envs.unrolled.classifier import cross_entropy, init_network
from pes_rl.envs.unrolled.problem import UnrolledProblem, tensor_names

UNITS = 5
EMBEDDING_BOUND = 0.1

State = tuple[jax.Array, jax.Array, jax.Array]  # step t, output h [UNITS], cell [UNITS]


@dataclass(frozen=True)
class CharacterLSTM(UnrolledProblem):
    """All parameters of a character LSTM.

    Published: Penn Treebank in characters, T = 1000.

    Attributes:
        regime: Tokens of the sequence: the `text` itself, `random` tokens of its
            vocabulary, or its first token `repeated`.
        text_file: Text file in UTF-8; None for a generated text of 26 letters.
        split_on_spaces: Split the text into tokens at spaces, and make the end of a
            line a token, as in Penn Treebank's character version; otherwise every
            character is a token.
        horizon: Steps T of an episode.
    """

    regime: Literal["text", "random", "repeated"] = "text"
    text_file: str | None = None
    split_on_spaces: bool = False
    horizon: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        assert (
            self._sequence.size
        )  # Read here, so that a bad file is an error at construction.

    @property
    def vocabulary_size(self) -> int:
        """Number of different tokens in the text."""
        return int(self._text.max()) + 1

    @property
    def _text(self) -> np.ndarray:
        return load_tokens(self.text_file, self.split_on_spaces)

    @property
    def _sequence(self) -> np.ndarray:
        """The T + 1 tokens of an episode."""
        text, length = self._text, self.horizon + 1
        if self.regime == "repeated":
            return np.full(length, text[0], np.int32)
        if self.regime == "random":
            generator = np.random.default_rng(5)
            return generator.integers(self.vocabulary_size, size=length, dtype=np.int32)
        if len(text) < length:
            raise ValueError(
                f"horizon={self.horizon} needs {length} tokens and the text has "
                f"{len(text)}; use {len(text) - 1} or less"
            )
        return text[:length]

    @property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of theta's parts, in their order in theta."""
        size = self.vocabulary_size
        return {
            "embedding": (size, UNITS),
            "LSTM weights": (2 * UNITS, 4 * UNITS),
            "LSTM bias": (4 * UNITS,),
            "output weights": (UNITS, size),
            "output bias": (size,),
        }

    @property
    def parameter_names(self) -> tuple[str, ...]:
        names = (tensor_names(*item) for item in self._shapes.items())
        return tuple(name for tensor in names for name in tensor)

    def init_theta(self, key: jax.Array) -> jax.Array:
        shapes, bound = self._shapes, EMBEDDING_BOUND
        keys = jax.random.split(key, 3)
        embedding = jax.random.uniform(
            keys[0], shapes["embedding"], float, -bound, bound
        )
        lstm = init_network(keys[1], shapes["LSTM weights"])
        output = init_network(keys[2], shapes["output weights"])
        return ravel_pytree((embedding, lstm, output))[0]

    def init(self, key: jax.Array) -> State:
        del key
        return jnp.int32(0), jnp.zeros(UNITS), jnp.zeros(UNITS)

    def step(
        self, theta: jax.Array, state: State
    ) -> tuple[State, jax.Array, jax.Array]:
        t, h, cell = state
        sequence = jnp.asarray(self._sequence)
        embedding, weights, bias, output_weights, output_bias = self._unravel(theta)
        x = jnp.concatenate([embedding[sequence[t]], h])
        into, candidate, forget, out = jnp.split(x @ weights + bias, 4)
        # With 1 added, the cell keeps its memory at first (Jozefowicz et al. 2015).
        cell = jax.nn.sigmoid(forget + 1) * cell
        cell = cell + jax.nn.sigmoid(into) * jnp.tanh(candidate)
        h = jax.nn.sigmoid(out) * jnp.tanh(cell)
        logits = h @ output_weights + output_bias
        loss = cross_entropy(logits[None], sequence[t + 1][None])[0]
        return (t + 1, h, cell), loss, jnp.array(False)

    @property
    def diverged_loss(self) -> float:
        """Loss of random guesses for a whole episode."""
        return self.horizon * math.log(self.vocabulary_size)

    def _unravel(self, theta: jax.Array) -> list[jax.Array]:
        shapes = self._shapes.values()
        ends = np.cumsum([np.prod(shape) for shape in shapes])
        parts = jnp.split(theta, ends[:-1])
        return [x.reshape(shape) for x, shape in zip(parts, shapes, strict=True)]


@cache
def load_tokens(file: str | None, split_on_spaces: bool) -> np.ndarray:
    """The tokens of a text, as numbers in alphabetical order.

    Raises:
        ValueError: If the file is not text, or is empty.
    """
    try:
        text = generate_text() if file is None else Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"text_file={file!r} cannot be read as UTF-8 text: {error}"
        ) from error
    tokens = list(text)
    if split_on_spaces:
        tokens = text.replace("\n", " \n ").strip(" ").split(" ")
        tokens = [token for token in tokens if token]
    if not tokens:
        raise ValueError(f"text_file={file!r} is empty; use a file with text")
    _, numbers = np.unique(tokens, return_inverse=True)
    return numbers.astype(np.int32)


def generate_text(num_words: int = 2000) -> str:
    """Lines of invented words, a few of which are frequent, as in a language."""
    generator = np.random.default_rng(0)
    letters = [chr(ord("a") + i) for i in range(26)]
    words = [
        "".join(generator.choice(letters, size=generator.integers(2, 8)))
        for _ in range(100)
    ]
    frequency = 1 / np.arange(1, len(words) + 1)
    chosen = generator.choice(words, size=num_words, p=frequency / frequency.sum())
    lines = (" ".join(chosen[i : i + 10]) for i in range(0, num_words, 10))
    return "\n".join(lines)
