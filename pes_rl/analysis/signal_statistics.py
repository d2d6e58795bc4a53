"""Signal, noise, signal-to-noise ratio and cosine of estimators, with intervals.

Symbols: g_j the mean of estimator j's estimates, m_jc its mean over time in chain c of
the C chains of its stream, n the updates of that mean, P the pairs of an update.

An inner product g_j . g_k is estimated without bias by the mean of m_jc . m_kd over
chains c and d that are independent: d != c where both are of one stream, all d where
they are not. So |g_j|^2 is free of the noise that the squared norm of a mean has.

    noise            V = E |estimate - g|^2 of one update with P pairs
    long noise       W = limit of n E |mean of n updates - g|^2,
                     from n times the variance of m_jc between chains
    correlation      W / V: so many updates count as one
    ratio an update  |g|^2 / V
    ratio a step     |g|^2 / (W steps), steps those of an update
    cosine           g . r / (|g| |r|), r the gradient

r is the mean of the unbiased estimators' g, each with the weight that is best if all
have one direction, |g| / (variance of its measured mean). What an update contributes
along r beside its noise, squared and a step, is

    useful ratio     sign(g . r) (g . r)^2 / (|r|^2 W steps) = +- cosine^2 ratio a step

Intervals are those of Student's t with the standard errors of the jackknife that leaves
out one chain at a time, stream by stream; the useful ratio's is that of its signed
root, which is nearer to normal.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
from scipy.stats import t as student

from pes_rl.analysis.signal_stream import Setting
from pes_rl.analysis.signal_sums import Measured

CONFIDENCE = 0.95
PER_STEPS = 1000
"""Environment steps that ratios a step are given for."""


@dataclass(frozen=True)
class Interval:
    """A value and its interval of 95 % confidence; NaN and infinite where unknown."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """What is known of one estimator, in updates with P pairs; see the module.

    Attributes:
        setting: The estimator.
        steps: Environment steps of an update.
        signal: |g|.
        noise: V.
        correlation: W / V.
        ratio: An update.
        ratio_by_steps: For `PER_STEPS` steps.
        cosine: With r.
        useful: The useful ratio, for `PER_STEPS` steps.
    """

    setting: Setting
    steps: float
    signal: Interval
    noise: Interval
    correlation: Interval
    ratio: Interval
    ratio_by_steps: Interval
    cosine: Interval
    useful: Interval


@dataclass(frozen=True)
class Replicates:
    """Statistics from all chains (row 0), and without one chain each (the other rows).

    Attributes:
        settings: The J estimators of all streams.
        stream: Stream of each row but the first. # shape=(R - 1,)
        quantile: Of Student's t, for the intervals.
        is_lost: Whether the gradient's squared norm may be 0.
        steps, squared, noise, long_noise, cosine, amplitude: The last is the signed
            root of the useful ratio for one step. # shape=(R, J)
    """

    settings: tuple[Setting, ...]
    stream: np.ndarray
    quantile: float
    is_lost: bool
    steps: np.ndarray
    squared: np.ndarray
    noise: np.ndarray
    long_noise: np.ndarray
    cosine: np.ndarray
    amplitude: np.ndarray

    def half_width(self, values: np.ndarray) -> np.ndarray:
        """Half the interval of a statistic of shape (R, ...), shape (...)."""
        variance = np.zeros(values.shape[1:])
        for stream in np.unique(self.stream):
            own = values[1:][self.stream == stream]
            distances = (own - own.mean(0)) ** 2
            variance += (len(own) - 1) / len(own) * distances.sum(0)
        return self.quantile * np.sqrt(variance)

    def interval(self, values: np.ndarray) -> list[Interval]:
        """Intervals of a statistic of each estimator, [R, J]."""
        half = self.half_width(values)
        return [
            Interval(float(v), float(v - h), float(v + h))
            for v, h in zip(values[0], half, strict=True)
        ]


def is_reference(setting: Setting, reference: str) -> bool:
    """Whether the estimator's mean is taken for the gradient; see `make_replicates`."""
    return setting.is_unbiased and reference in ("all", setting.agent)


def make_replicates(
    measured: Sequence[Measured], num_pairs: int, reference: str = "all"
) -> Replicates:
    """The statistics of all estimators.

    Args:
        measured: What was measured of each stream, of 3 chains or more.
        num_pairs: P.
        reference: Agent whose mean, if unbiased, is the gradient r; "all" takes all
            unbiased ones.
    """
    settings = tuple(s for m in measured for s in m.settings)
    products, squares = _inner_products(measured)
    squared = np.diagonal(products, axis1=1, axis2=2)

    def by_setting(name: str) -> np.ndarray:
        columns = [
            np.broadcast_to(getattr(m.means, name), squares_of.shape)
            for m, squares_of in zip(measured, squares, strict=True)
        ]
        return _leave_one_out(columns)

    pair_noise = by_setting("pair_noise")
    counts = [len(m.settings) for m in measured]
    shares = np.repeat([m.shares_states for m in measured], counts)
    updates = np.repeat([m.updates for m in measured], counts)

    def of_pairs(variance: np.ndarray) -> np.ndarray:
        """That of P pairs, from that of a chain: one pair, or two in one state."""
        state = np.maximum(variance - pair_noise / 2, 0)
        return np.where(shares, state + pair_noise / num_pairs, variance / num_pairs)

    spread = by_setting("spread")
    of_chain = updates * (_leave_one_out(squares) - squared)
    noise = of_pairs(np.where(shares, spread - squared, spread))
    long_noise = of_pairs(of_chain)
    steps = by_setting("shared_steps") + num_pairs * by_setting("pair_steps")
    chains = np.repeat([m.means.spread.shape[1] for m in measured], counts)
    counted = [is_reference(s, reference) for s in settings]
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.sqrt(np.maximum(squared[0], 0)) * updates * chains / of_chain[0]
        weights = np.where(counted, weights, 0)
        weights = weights / weights.sum() if weights.any() else weights
        along = products @ weights
        reference_squared = along @ weights
        norm = np.sqrt(reference_squared)[:, None]
        cosine = along / (np.sqrt(squared) * norm)
        amplitude = along / (norm * np.sqrt(long_noise * steps))
        # Without a signal, or a reference, there is nothing useful.
        amplitude = np.nan_to_num(amplitude, nan=0, posinf=0, neginf=0)
    stream = np.repeat(np.arange(len(measured)), [s.shape[1] for s in squares])
    quantile = float(student.ppf((1 + CONFIDENCE) / 2, min(chains) - 1))
    made = Replicates(
        settings,
        stream,
        quantile,
        False,
        steps,
        squared,
        noise,
        long_noise,
        cosine,
        amplitude,
    )
    lost = not reference_squared[0] > made.half_width(reference_squared)
    return replace(made, is_lost=bool(lost))


def estimates(made: Replicates) -> list[Estimate]:
    """Values and intervals of each estimator."""
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = made.interval(made.long_noise / made.noise)
        ratio = made.interval(made.squared / made.noise)
        by_step = made.squared / (made.long_noise * made.steps)
        by_steps = made.interval(PER_STEPS * by_step)
    squared, noise = made.interval(made.squared), made.interval(made.noise)
    cosine, amplitude = made.interval(made.cosine), made.interval(made.amplitude)
    return [
        Estimate(
            setting,
            float(made.steps[0, j]),
            _root(squared[j]),
            noise[j],
            correlation[j],
            ratio[j],
            by_steps[j],
            _known_cosine(cosine[j], squared[j]),
            _signed_square(amplitude[j]),
        )
        for j, setting in enumerate(made.settings)
    ]


def _inner_products(
    measured: Sequence[Measured],
) -> tuple[np.ndarray, list[np.ndarray]]:
    """(estimates of g_j . g_k [R, J, J], |m_jc|^2 of each stream [J_s, C])."""
    vectors = [m.means.estimates for m in measured]
    mean = np.concatenate([v.mean(1) for v in vectors])
    ends = np.cumsum([len(v) for v in vectors])
    places = [slice(end - len(v), end) for v, end in zip(vectors, ends, strict=True)]
    gram = mean @ mean.T
    full, squares, own_products = gram.copy(), [], []
    for place, v in zip(places, vectors, strict=True):
        count = v.shape[1]
        own = np.einsum("jcd,kcd->cjk", v, v, optimize=True)
        off_diagonal = count**2 * gram[place, place] - own.sum(0)
        full[place, place] = off_diagonal / (count * (count - 1))
        squares.append(np.diagonal(own, axis1=1, axis2=2).T)
        own_products.append((own, off_diagonal))
    rows = [full[None]]
    for place, v, (own, off_diagonal) in zip(
        places, vectors, own_products, strict=True
    ):
        count = v.shape[1]
        left = np.repeat(full[None], count, axis=0)
        with_mean = np.swapaxes(v @ mean.T, 0, 1)  # [C, J_s, J]
        others = (count * gram[place] - with_mean) / (count - 1)
        left[:, place, :] = others
        left[:, :, place] = np.swapaxes(others, 1, 2)
        removed = count * with_mean[:, :, place] - own
        removed = removed + np.swapaxes(removed, 1, 2)
        left[:, place, place] = (off_diagonal - removed) / ((count - 1) * (count - 2))
        rows.append(left)
    return np.concatenate(rows), squares


def _leave_one_out(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Means over chains, of all and without one each: [R, J].

    Args:
        columns: Values of each stream's estimators and chains, [J_s, C] each.
    """
    means = np.concatenate([c.mean(1) for c in columns])
    rows, end = [means[None]], 0
    for column in columns:
        begin, end = end, end + len(column)
        count = column.shape[1]
        left = np.repeat(means[None], count, axis=0)
        left[:, begin:end] = ((column.sum(1)[:, None] - column) / (count - 1)).T
        rows.append(left)
    return np.concatenate(rows)


def _root(squared: Interval) -> Interval:
    """Roots of an interval's values; of negative ones 0."""
    return Interval(*(float(np.sqrt(max(x, 0))) for x in astuple(squared)))


def _signed_square(amplitude: Interval) -> Interval:
    return Interval(*(float(PER_STEPS * x * abs(x)) for x in astuple(amplitude)))


def _known_cosine(cosine: Interval, squared: Interval) -> Interval:
    """The cosine from -1 to 1; any where the estimator's mean may be 0."""
    if not squared.low > 0 or not np.isfinite(astuple(cosine)).all():
        return Interval(float(np.clip(cosine.value, -1, 1)), -1.0, 1.0)
    return Interval(*(float(np.clip(x, -1, 1)) for x in astuple(cosine)))
