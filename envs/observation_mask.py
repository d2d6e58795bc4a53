"""Entries of an observation by name or number, for policies that do not see all."""

_HUMANOID = {
    "body-inertias": slice(45, 175),
    "body-velocities": slice(175, 253),
    "actuator-forces": slice(253, 270),
    "contact-forces": slice(270, 348),
}
OBSERVATION_PARTS: dict[str, dict[str, slice]] = {
    "ant": {"contact-forces": slice(27, 105)},
    "humanoid": _HUMANOID,
    "humanoidstandup": _HUMANOID,
}
"""Named parts of the observation, by native task, in the order of Gymnasium's v5."""


def visible_entries(mask: str, size: int, env: str) -> tuple[int, ...]:
    """Indices of the observation's entries that are not in the mask.

    Args:
        mask: What is hidden, separated by commas: indices from 0, ranges START:STOP
            without STOP (either may be left out), and names of parts that the native
            task has in `OBSERVATION_PARTS`.
        size: Number of entries O of the observation.
        env: Name of the environment.

    Raises:
        ValueError: If an entry does not exist, or none is left.

    >>> visible_entries("0, 4:", 6, "hopper")
    (1, 2, 3)
    >>> len(visible_entries("contact-forces", 105, "ant"))
    27
    """
    hidden: set[int] = set()
    for part in mask.split(","):
        hidden |= _entries(part.strip(), size, env)
    visible = tuple(index for index in range(size) if index not in hidden)
    if not visible:
        raise ValueError(
            f"observation_mask={mask!r} hides all {size} entries of the observation; "
            "the mask names those that the policy does not see"
        )
    return visible


def _entries(part: str, size: int, env: str) -> set[int]:
    named = OBSERVATION_PARTS.get(env, {})
    if part in named:
        return set(range(size)[named[part]])
    start, colon, stop = part.partition(":")
    if all(
        bound.isdecimal() or (colon and not bound) for bound in (start, stop or start)
    ):
        first = int(start or 0)
        last = int(stop or size) if colon else first + 1
        if 0 <= first < last <= size:
            return set(range(first, last))
    names = f"; {env} also has {', '.join(named)}" if named else ""
    raise ValueError(
        f"observation_mask has {part!r}, which is no entry of {env}'s {size}; write "
        f"indices from 0 to {size - 1} or ranges such as 0:{size}, separated by "
        f"commas{names}"
    )
