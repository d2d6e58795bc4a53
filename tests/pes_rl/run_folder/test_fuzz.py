"""Files that were changed at random are read, or refused by a `ValueError`.

The changes are of the bytes of the file and, because a zip's checksums find most of
those, of the bytes of its members in a zip that is whole.
"""

import io
import json
import math
import zipfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from properties import VALUES, bounded, mutated

from pes_rl.agents import Policy
from pes_rl.config.train_config import make_config
from pes_rl.envs.spaces import Box, Discrete, MultiDiscrete, Spaces, Tuple
from pes_rl.run_folder.policy_files import (
    TrainedParameters,
    load_parameters,
    load_policy,
    save_parameters,
    save_policy,
)
from pes_rl.run_folder.reader import read_config, read_curve, read_summary
from pes_rl.run_folder.trained_policy import (
    TrainedPolicy,
)
from pes_rl.studies.study import read_study
from pes_rl.studies.sweep_space import read_space

LINEAR = Policy(3, (-1.0, -2.0), (1.0, 2.0))
POLICIES = [
    LINEAR,
    replace(LINEAR, hidden_sizes=(2,), clip=False),
    replace(LINEAR, action_low=(-math.inf,), action_high=(math.inf,), bias=False),
]


def trained(policy):
    theta = np.linspace(-2, 2, policy.num_parameters, dtype=np.float32)
    three = np.arange(1, 4, dtype=np.float32)
    return TrainedPolicy(policy, theta, three, three)


def content_of(save, saved, folder):
    path = folder / "saved"
    save(path, saved)
    return path.read_bytes()


def members_mutated(content, random):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = random.choice(sorted(members))
    members[name] = mutated(members[name], random)
    changed = io.BytesIO()
    with zipfile.ZipFile(changed, "w") as archive:
        for each, member in members.items():
            archive.writestr(each, member)
    return changed.getvalue()


def acts_finitely(policy):
    """In float64, as it computes: an action beyond float32 can be what it learned."""
    size = policy.policy.observation_size
    for observation in (np.zeros(size), np.full((2, size), -9.0)):
        theta = policy.theta.astype(np.float64)
        if observation.ndim == 2:
            theta = np.broadcast_to(theta, (2, len(theta)))
        assert np.isfinite(policy.act(theta, observation)).all()


def outcome(read, path, content):
    """Whether the content is read; it is refused in a line otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    try:
        read()
    except ValueError as error:
        assert len(str(error).strip().split("\n")) == 1
        return "refused"
    return "read"


@bounded(150)
@given(st.integers(0, 2**32), st.sampled_from(POLICIES), st.booleans())
def test_policies_that_were_changed(tmp_path_factory, seed, policy, inside):
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    content = content_of(save_policy, trained(policy), folder)
    change = members_mutated if inside else mutated
    path = folder / "policy" / "best.npz"
    changed = change(content, np.random.default_rng(seed))
    outcome(lambda: acts_finitely(load_policy(path)), path, changed)


FIELDS = st.sampled_from(
    [*LINEAR.__dataclass_fields__, "format", "activation", "spaces"]
)


SPACES = Spaces(
    Tuple((Discrete(2), Box((1,)))), MultiDiscrete((2, 1), (1, 1), (0, -3), "int32")
)


@bounded(150)
@given(st.integers(0, 2**32))
def test_descriptions_of_spaces_that_were_changed(tmp_path_factory, seed):
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    policy = replace(trained(LINEAR), spaces=SPACES)
    with np.load(io.BytesIO(content_of(save_policy, policy, folder))) as file:
        arrays = {name: file[name] for name in file.files}
    description, path = json.loads(str(arrays["policy"])), folder / "policy/best.npz"
    text = json.dumps(description.pop("spaces")).encode()
    text = mutated(text, np.random.default_rng(seed)).decode("utf-8", "replace")
    whole = f'{json.dumps(description)[:-1]}, "spaces": {text}}}'
    arrays["policy"] = np.array(whole.replace("\0", " "))
    changed = io.BytesIO()
    np.savez(changed, **arrays)

    def acts():
        policy = load_policy(path)
        if policy.spaces == SPACES:
            assert policy((1, [0.5])).shape == (2, 1)

    outcome(acts, path, changed.getvalue())


@bounded(150)
@given(st.dictionaries(FIELDS, VALUES, max_size=2))
def test_descriptions_of_anything(tmp_path_factory, changes):
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    with np.load(io.BytesIO(content_of(save_policy, trained(LINEAR), folder))) as file:
        arrays = {name: file[name] for name in file.files}
    description = json.loads(str(arrays["policy"])) | changes
    arrays["policy"] = np.array(json.dumps(description))
    changed, path = io.BytesIO(), folder / "policy" / "best.npz"
    np.savez(changed, **arrays)
    outcome(lambda: acts_finitely(load_policy(path)), path, changed.getvalue())


STUDY = b"""title = "a"
env = "swimmer"
[[arm]]
agent = "pes"
seeds = [0, 1]
hidden_sizes = [8]
vmap_seeds = false
"""
SPACE = b"""env = "swimmer"
agent = "pes"
seeds = "0-3"
[search]
sigma = { low = 0.1, high = 0.5, log = true }
num_pairs = { low = 1, high = 8, step = 1 }
policy = ["linear", "mlp"]
"""
LOG = b"time/total_timesteps,eval/mean_reward\n0,1.5\n10,\n20,-3e5\n"


def cases(folder):
    """By kind: the file, its content, how it is changed, and how it is read."""
    best = folder / "policy" / "best.npz"
    policy = content_of(save_policy, trained(POLICIES[1]), folder)
    names = TrainedParameters(("a", "b"), np.ones(2, np.float32))
    parameters = content_of(save_parameters, names, folder)
    settings = {"settings": vars(make_config("swimmer", "pes")), "made_by": ["x"]}
    config = json.dumps(settings).encode()
    study, space = folder / "study.toml", folder / "space.toml"
    columns = ("time/total_timesteps", "eval/mean_reward")

    def acts():
        acts_finitely(load_policy(best))

    def finds():
        assert np.isfinite(load_parameters(folder).theta).all()

    return {
        "policy": (best, policy, mutated, acts),
        "members of a policy": (best, policy, members_mutated, acts),
        "parameters": (best, parameters, mutated, finds),
        "members of parameters": (best, parameters, members_mutated, finds),
        "study": (study, STUDY, mutated, lambda: read_study(study)),
        "space": (space, SPACE, mutated, lambda: read_space(space)),
        "settings": (
            *(folder / "config.json", config, mutated),
            lambda: read_config(folder),
        ),
        "summary": (
            *(folder / "summary.json", b'{"final_return": 3.5}', mutated),
            lambda: read_summary(folder),
        ),
        "log": (
            *(folder / "progress.csv", LOG, mutated),
            lambda: read_curve(folder, columns),
        ),
    }


def fuzz(folder, files):
    """The outcomes of so many changed files, by kind."""
    random, found = np.random.default_rng(16), Counter()
    kinds = list(cases(folder).items())
    for number in range(files):
        kind, (path, content, change, read) = kinds[number % len(kinds)]
        changed = change(content, random)
        found[kind, outcome(read, path, changed)] += 1
    return found


def test_a_hundred_changed_files_of_each_kind(tmp_path):
    assert fuzz(tmp_path, 900).total() == 900


@pytest.mark.slow
def test_ten_thousand_changed_files(tmp_path):
    found = fuzz(tmp_path, 10_000)
    assert found.total() == 10_000
    for kind in cases(tmp_path):
        assert found[kind, "refused"] > 100, kind
