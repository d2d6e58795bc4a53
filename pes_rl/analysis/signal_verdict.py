"""Which estimator, K and trace decay a run should use, in a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pes_rl.analysis.signal_statistics import Estimate, Replicates
from pes_rl.analysis.signal_stream import Setting


@dataclass(frozen=True)
class Verdict:
    """What to use.

    Attributes:
        best: The estimator with the largest useful ratio; None where it cannot be told
            from others, or the gradient is lost in noise.
        sentence: For the user.
        notes: A word on each estimator, for the table; may be empty.
    """

    best: Setting | None
    sentence: str
    notes: tuple[str, ...]


def _is_candidate(estimate: Estimate, min_cosine: float) -> bool:
    """Whether the cosine is `min_cosine` or more, as far as its interval says."""
    return estimate.setting.is_unbiased or estimate.cosine.high >= min_cosine


def _is_recommendable(estimate: Estimate, min_cosine: float) -> bool:
    """Whether the cosine is surely `min_cosine` or more."""
    return estimate.setting.is_unbiased or estimate.cosine.low >= min_cosine


def decide(
    made: Replicates,
    known: Sequence[Estimate],
    own: Setting | None,
    min_cosine: float,
) -> Verdict:
    """The estimator with the largest useful ratio, if it is larger than all others'.

    Of the biased ones, those whose cosine is surely below `min_cosine` do not count,
    and only those whose cosine is surely above are recommended.

    Two ratios differ where the interval of the difference of their signed roots does
    not contain 0. Estimators of one stream share their rollouts, so that is more than
    their intervals say.

    Args:
        made: The statistics.
        known: `estimates` of them.
        own: What the run uses; None where that was not measured.
        min_cosine: Least cosine of a biased estimator.
    """
    if made.is_lost:
        return Verdict(
            None,
            "Cannot tell: the gradient is 0 or lost in noise. Give --steps ten times "
            "as many, or a larger --sigma.",
            tuple("run" if s == own else "" for s in made.settings),
        )
    value = made.amplitude[0]
    allowed = [j for j, e in enumerate(known) if _is_candidate(e, min_cosine)]
    usable = [j for j in allowed if _is_recommendable(known[j], min_cosine)]
    leader = max(usable, key=lambda j: value[j])
    difference = made.amplitude[:, leader, None] - made.amplitude
    is_less = difference[0] > made.half_width(difference)
    equals = [j for j in allowed if j != leader and not is_less[j]]
    place = made.settings.index(own) if own in made.settings else None
    name = made.settings[leader]
    notes = ["" if j in allowed else "biased" for j in range(len(known))]
    notes[leader] = "first"
    for j in equals:
        notes[j] = "as good?"
    if place is not None:
        notes[place] = f"{notes[place]} (run)".strip()
    if not equals:
        return Verdict(name, _use(made, leader, place), tuple(notes))
    sentence = (
        f"Cannot tell which is best: {name} is in front, and "
        f"{_listed([made.settings[j] for j in equals])} may be as good or better."
    )
    if place in equals or place == leader:
        sentence += f" None is shown to be better than {own}, which the run uses."
    elif place is not None:
        sentence += f" It {_times(made, leader, place)}."
    sentence += " More --steps tell more apart."
    return Verdict(None, sentence, tuple(notes))


def _use(made: Replicates, leader: int, place: int | None) -> str:
    name = made.settings[leader]
    if place == leader:
        return f"Keep {name}: it is better than all others here."
    if place is None:
        return f"Use {name}: it is better than all others here."
    return f"Use {name}: it {_times(made, leader, place)}."


def _times(made: Replicates, leader: int, place: int) -> str:
    """How many times the useful ratio of the run's own estimator the leader has."""
    own = made.settings[place]
    if not made.amplitude[0, place] > made.half_width(made.amplitude)[place]:
        return (
            f"has a useful signal, and that of {own}, which the run uses, is lost in "
            "noise or points the wrong way"
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.log(made.amplitude[:, leader] / made.amplitude[:, place])
    half = float(made.half_width(ratio))
    low, times, high = np.exp(2 * (ratio[0] + half * np.array([-1, 0, 1])))
    return (
        f"has {times:.2g} times the useful signal-to-noise ratio a step of {own}, "
        f"which the run uses (95 % interval: {low:.2g} to {high:.2g})"
    )


def _listed(settings: Sequence[Setting]) -> str:
    names = [str(s) for s in settings]
    if len(names) > 4:
        names = [*names[:3], f"{len(names) - 3} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
