# pyright: reportMissingImports=false
"""One form for all networks: pure functions of parameters and an observation.

flax and equinox are imported only where the network given is one of theirs.
"""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from pes_rl.envs.gymnasium.results import describe

Parameters = Any  # a pytree of float32 arrays
Carry = Any  # a pytree of arrays


@dataclass(frozen=True)
class Network:
    """A network as pure functions.

    Attributes:
        init: Maps a key to first parameters.
        apply: Maps (parameters, observation [O]) to an output [A]; with a carry,
            (parameters, carry, observation) to (carry, output).
        initial_carry: Returns the carry at the start of an episode; None for a network
            without one.
    """

    init: Callable[[jax.Array], Parameters]
    apply: Callable[..., Any]
    initial_carry: Callable[[], Carry] | None = None


def as_network(given: Any, observation_size: int, action_size: int) -> Network:
    """The network that a user gave, as pure functions.

    Args:
        given: An instance of `flax.linen.Module`, `flax.nnx.Module` or
            `equinox.Module`; functions (init, apply) or (init, apply, initial_carry);
            or a class or function that makes one of these. It is called with those of
            the keywords `observation_size`, `action_size`, `key` (a JAX key) and `rngs`
            (an `nnx.Rngs`) that its signature names.
        observation_size: O.
        action_size: A.

    Raises:
        ValueError: If it is none of these, or cannot be made.
    """
    try:
        return _as_network(given, observation_size, action_size)
    except ValueError:
        raise
    except Exception as error:  # Whatever the user's code raises.
        raise ValueError(
            f"policy={_name(given)} cannot be made: {describe(error)}"
        ) from error


def _as_network(given: Any, observation_size: int, action_size: int) -> Network:
    network = _adapt(given, observation_size)
    if network is not None:
        return network
    if not callable(given):
        raise ValueError(
            f"policy={given!r} is no network; use a flax or equinox module, a pair of "
            "functions (init, apply), or a class or function that makes one of these"
        )
    sizes = {"observation_size": observation_size, "action_size": action_size}
    make, takes_key = _constructor(given, sizes)
    template = make(jax.random.key(0))
    network = _adapt(template, observation_size)
    if network is None:
        raise ValueError(
            f"policy={_name(given)} made {type(template).__name__}, which is no "
            "network; return a flax or equinox module, or a pair (init, apply)"
        )
    if not takes_key:
        return network
    # Another key makes another instance; its parameters are the first ones.
    parameters = _parameters_of(template)
    return Network(
        lambda key: parameters(make(key)), network.apply, network.initial_carry
    )


def _adapt(given: Any, observation_size: int) -> Network | None:
    """The network of an instance or of functions; None for anything else."""
    if isinstance(given, tuple | list):
        if len(given) not in (2, 3) or not all(map(callable, given)):
            raise ValueError(
                "policy must be the functions (init, apply) or, with a carry, "
                f"(init, apply, initial_carry); it is {given!r}"
            )
        return Network(*given)
    if _is_module(given, "flax.linen"):
        return _from_linen(given, observation_size)
    if _is_module(given, "flax.nnx"):
        return _from_nnx(given)
    if _is_module(given, "equinox"):
        return _from_equinox(given)
    return None


def _is_module(given: Any, library: str) -> bool:
    """Whether it is an instance of the library's `Module`."""
    loaded = sys.modules.get(library)  # It is, where there is an instance.
    return loaded is not None and isinstance(given, loaded.Module)


def _from_linen(module: Any, observation_size: int) -> Network:
    initial_carry = getattr(module, "initial_carry", None)
    carry = () if initial_carry is None else (initial_carry(),)

    def init(key: jax.Array) -> Parameters:
        variables = dict(module.init(key, *carry, jnp.zeros(observation_size)))
        parameters = variables.pop("params", {})
        if variables:
            raise ValueError(
                f"{type(module).__name__} has variables besides its parameters "
                f"({', '.join(variables)}), such as batch statistics, and a policy "
                "must be a pure function of parameters and observation; do without them"
            )
        return parameters

    def apply(parameters: Parameters, *inputs: Any) -> Any:
        return module.apply({"params": parameters}, *inputs)

    return Network(init, apply, initial_carry)


def _from_nnx(module: Any) -> Network:
    from flax import nnx

    graph, parameters, rngs, others = nnx.split(module, nnx.Param, nnx.RngState, ...)
    if jax.tree.leaves(others):
        raise ValueError(
            f"{type(module).__name__} has variables that are no nnx.Param, such as "
            "batch statistics, and a policy must be a pure function of parameters and "
            "observation; do without them"
        )

    def apply(parameters: Parameters, *inputs: Any) -> Any:
        return nnx.merge(graph, parameters, rngs, others)(*inputs)

    initial_carry = getattr(module, "initial_carry", None)
    return Network(lambda key: parameters, apply, initial_carry)


def _from_equinox(module: Any) -> Network:
    import equinox

    parameters, rest = equinox.partition(module, equinox.is_inexact_array)

    def apply(parameters: Parameters, *inputs: Any) -> Any:
        return equinox.combine(parameters, rest)(*inputs)

    initial_carry = getattr(module, "initial_carry", None)
    return Network(lambda key: parameters, apply, initial_carry)


def _parameters_of(template: Any) -> Callable[[Any], Parameters]:
    """A function that maps an instance like this one to its parameters."""
    if _is_module(template, "flax.nnx"):
        from flax import nnx

        return lambda module: nnx.state(module, nnx.Param)
    if _is_module(template, "equinox"):
        import equinox

        return lambda module: equinox.filter(module, equinox.is_inexact_array)
    raise ValueError(
        f"a constructor that takes a key made {type(template).__name__}, whose "
        "parameters are made by its own init(key); drop the key from the constructor"
    )


def _constructor(
    given: Callable[..., Any], sizes: dict[str, int]
) -> tuple[Callable[[jax.Array], Any], bool]:
    """A function of a key that makes the instance, and whether the key matters."""
    # A class may have a metaclass, as nnx has, whose signature says nothing.
    called = given.__init__ if isinstance(given, type) else given
    known = dict(inspect.signature(called).parameters)
    if isinstance(given, type):
        known.pop("self")
    keywords = {name: size for name, size in sizes.items() if name in known}
    seeded = [name for name in ("key", "rngs") if name in known]
    missing = [
        parameter.name
        for parameter in known.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and parameter.name not in (*keywords, *seeded)
    ]
    if missing:
        raise ValueError(
            f"policy={_name(given)} needs {', '.join(missing)}, and only "
            "observation_size, action_size, key and rngs are known here; give the "
            "others a default, or pass an instance"
        )

    def make(key: jax.Array) -> Any:
        seeds: dict[str, Any] = {}
        if "key" in seeded:
            seeds["key"] = key
        if "rngs" in seeded:
            from flax import nnx

            seeds["rngs"] = nnx.Rngs(key)
        return given(**keywords, **seeds)

    return make, bool(seeded)


def _name(given: Any) -> str:
    return getattr(given, "__qualname__", type(given).__name__)
