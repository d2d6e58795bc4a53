"""Policy files that were damaged or come from elsewhere: one line says what is bad."""

import io
import json
import math
import pickle
import subprocess
import sys
import zipfile
from typing import Any

import numpy as np
import pytest

from pes_rl.agents import Policy
from pes_rl.run_folder.policy_files import (
    TrainedParameters,
    load_parameters,
    load_policy,
    save_parameters,
    save_policy,
)
from pes_rl.run_folder.trained_policy import (
    TrainedPolicy,
)

POLICY = Policy(3, (-1.0, -math.inf), (1.0, math.inf), hidden_sizes=(2,))
TRAINED = TrainedPolicy(
    POLICY,
    np.arange(POLICY.num_parameters, dtype=np.float32),
    np.zeros(3, np.float32),
    np.ones(3, np.float32),
)
REMOVED = object()


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "policy" / "best.npz"
    path.parent.mkdir()
    save_policy(path, TRAINED)
    return path


def one_line(load, path):
    with pytest.raises(ValueError) as caught:
        load(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def change_array(path, name, value):
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    arrays[name] = value
    if value is REMOVED:
        del arrays[name]
    with path.open("wb") as file:
        np.savez(file, **arrays)


def change_description(path, name, value):
    with np.load(path) as file:
        description = json.loads(str(file["policy"]))
    description[name] = value
    if value is REMOVED:
        del description[name]
    change_array(path, "policy", np.array(json.dumps(description)))


def test_what_is_saved_is_read(saved):
    read = load_policy(saved)
    assert read.policy == POLICY
    for name in ("theta", "mean", "std"):
        np.testing.assert_array_equal(getattr(read, name), getattr(TRAINED, name))


def vector(*values, dtype: Any = np.float32):
    return np.array(values, dtype)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("theta", np.zeros(13, np.float32), r"theta has shape \(13,\) and must have"),
        ("theta", np.zeros((2, 7), np.float32), r"theta has shape \(2, 7\) and must"),
        ("theta", np.zeros(14, int), "theta holds values of type int64 and must"),
        ("theta", np.array(["a"] * 14), "theta holds values of type <U1 and must"),
        ("theta", np.full(14, np.nan), "theta holds nan at position 0 and must"),
        ("theta", np.full(14, 1e300), "theta holds 1e.300 at position 0 and must"),
        ("theta", np.array([{}] * 14), "'theta' cannot be read: Object arrays"),
        ("theta", REMOVED, "it has no field 'theta'"),
        ("mean", vector(0, np.inf, 0), "mean holds inf at position 1 and must"),
        ("mean", vector(0, 0), r"mean has shape \(2,\) and must have \(3,\), the pol"),
        ("mean", REMOVED, "has no field 'mean', which format 2 needs"),
        ("std", vector(1, 1, 0), "std holds 0.0 and must hold numbers above 0"),
        ("std", vector(1, -1, 1), "std holds -1.0 and must hold numbers above 0"),
        ("std", vector(1, 1, np.nan), "std holds nan at position 2 and must"),
        ("std", vector("a", "b", "c", dtype=str), "std holds values of type <U1"),
        ("std", REMOVED, "has no field 'std'"),
        ("policy", REMOVED, "it has no field 'policy'"),
        ("policy", np.array("{"), "its field 'policy' is not JSON"),
        ("policy", np.array("[" * 9999), "its field 'policy' is not JSON"),
        ("policy", np.array("[1]"), r"its field 'policy' is \[1\] and must be a JSON"),
        ("policy", np.zeros(2), "'policy' has type float64 and shape"),
    ],
)
def test_a_wrong_field_is_named(saved, name, value, message):
    change_array(saved, name, value)
    with pytest.raises(ValueError, match=message):
        load_policy(saved)
    one_line(load_policy, saved)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("observation_size", "3", "observation_size is '3' and must be a whole number"),
        ("observation_size", 3.0, "observation_size is 3.0 and must be a whole number"),
        ("observation_size", 0, "observation_size is 0 and must be a whole number"),
        ("observation_size", 4, r"theta has shape \(14,\) and must have \(16,\)"),
        ("observation_size", 10**15, r"theta has shape \(14,\) and must have"),
        ("observation_size", REMOVED, "the policy has no field 'observation_size'"),
        ("action_low", 1, "action_low is 1 and must be a list of numbers"),
        ("action_low", [], r"action_low is \[\] and must be a list of numbers"),
        ("action_low", ["a", 0], "action_low is .* and must be a list of numbers"),
        ("action_low", [0, math.nan], "action_low is .* and must be a list of numbers"),
        ("action_low", [0], "they must be as many"),
        ("action_low", [5, 0], "no low above its high"),
        ("action_high", [10**400, 0], "action_high is .* must be a list of numbers"),
        ("hidden_sizes", [2.5], r"hidden_sizes is \[2.5\] and must be a list of whole"),
        ("hidden_sizes", [True], r"hidden_sizes is \[True\] and must be a list of"),
        ("hidden_sizes", [-1], r"hidden_sizes is \[-1\] and must be a list of whole"),
        ("hidden_sizes", [10**9] * 9, r"theta has shape \(14,\) and must have"),
        ("hidden_sizes", None, "hidden_sizes is None and must be a list of whole"),
        ("bias", 1, "bias is 1 and must be true or false"),
        ("clip", "yes", "clip is 'yes' and must be true or false"),
        ("temperature", 1, "an unknown field 'temperature'; a newer pes_rl may"),
        ("activation", "gelu", "activation is 'gelu' and must be one of tanh, relu"),
        ("activation", [], r"activation is \[\] and must be one of tanh, relu"),
        ("squash", 1, "squash is 1 and must be true or false"),
        ("squash", True, "not all of them finite"),
        ("kind", "lstm", "kind is 'lstm', and this pes_rl knows feed-forward, gru"),
        ("kind", [], r"kind is \[\], and this pes_rl knows feed-forward, gru"),
        ("kind", "gru", "an unknown field 'activation'"),
        ("kind", "network", "an unknown field 'hidden_sizes'"),
        ("format", "2", "policy format '2', and this pes_rl reads 1 to 2"),
        ("format", REMOVED, "policy format None, and this pes_rl reads 1 to 2"),
    ],
)
def test_a_wrong_field_of_the_description_is_named(saved, name, value, message):
    change_description(saved, name, value)
    with pytest.raises(ValueError, match=message):
        load_policy(saved)
    one_line(load_policy, saved)


def encrypted(content):
    """The flag of an encrypted member, in its entry of the zip's directory."""
    at = content.index(b"PK\x01\x02") + 8
    return content[:at] + bytes([content[at] | 1]) + content[at + 1 :]


def of_an_unknown_compression(content):
    at = content.index(b"PK\x01\x02") + 10
    return content[:at] + b"\x63" + content[at + 1 :]


def flipped(content):
    at = content.index(b"NUMPY") + 140
    return content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :]


def array_file(content):
    del content
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def huge_claim(content):
    """A header of a thousand million million numbers, and none after it."""
    del content
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(0, np.float32))
    header = buffer.getvalue().replace(
        b"(0,), }" + b" " * 15, b"(1000000000000000,), }"
    )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("policy", "theta", "names", "mean", "std"):
            file.writestr(f"{name}.npy", header)
    return archive.getvalue()


DAMAGES = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "without its end": lambda content: content[:-1],
    "text": lambda content: b"not a policy",
    "a flipped bit": flipped,
    "encrypted": encrypted,
    "of another compression": of_an_unknown_compression,
    "of one array": array_file,
    "of a huge claim": huge_claim,
    "an empty zip": lambda content: b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named(saved, damage):
    saved.write_bytes(DAMAGES[damage](saved.read_bytes()))
    assert "is not a policy saved by pes_rl (" in one_line(load_policy, saved)
    with pytest.raises(ValueError, match="holds no parameters of an unrolled problem"):
        load_parameters(saved.parents[1])


def test_a_pickle_is_not_executed(saved, tmp_path):
    class Writes:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    for content in (pickle.dumps(Writes()), None):
        if content is None:
            change_array_by_pickle(saved, Writes())
        else:
            saved.write_bytes(content)
        one_line(load_policy, saved)
    assert not (tmp_path / "executed").exists()


def change_array_by_pickle(path, value):
    array = np.empty(1, object)
    array[0] = value
    with path.open("wb") as file:
        np.savez(file, theta=array, policy=array)


def test_a_file_is_read_without_jax(saved):
    code = (
        "import sys; from pes_rl.run_folder.policy_files import load_policy; "
        f"load_policy({str(saved)!r}); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("theta", vector(1, np.nan), "theta holds nan at position 1 and must"),
        ("theta", vector(1), r"theta has shape \(1,\) and must have \(2,\), as many"),
        ("theta", vector(1, 2, dtype=int), "theta holds values of type int64"),
        ("theta", REMOVED, "it has no field 'theta'"),
        ("names", vector(1, 2), "names has type float32 and shape"),
        ("names", np.array("ab"), r"names has type <U2 and shape \(\) and must hold"),
        ("names", np.array([{}, {}]), "'names' cannot be read: Object arrays"),
        ("names", REMOVED, "it has no field 'names'"),
    ],
)
def test_parameters_of_an_unrolled_problem(tmp_path, name, value, message):
    path = tmp_path / "policy" / "best.npz"
    path.parent.mkdir()
    trained = TrainedParameters(("a", "b"), vector(1, 2))
    save_parameters(path, trained)
    assert load_parameters(tmp_path).names == trained.names
    change_array(path, name, value)
    with pytest.raises(ValueError, match=message) as caught:
        load_parameters(tmp_path)
    assert str(path) in str(caught.value)
