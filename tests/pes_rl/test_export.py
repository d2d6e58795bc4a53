"""Exported policies: their actions, their interface, and what cannot be exported."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from pes_rl import export
from pes_rl.agents import Policy
from pes_rl.config.train_config import make_config
from pes_rl.exporting.layers import check_export, to_layers
from pes_rl.exporting.numpy_format import to_numpy
from pes_rl.run_folder.policy_files import (
    TrainedParameters,
    save_parameters,
    save_policy,
)
from pes_rl.run_folder.trained_policy import (
    TrainedPolicy,
)

LOW, HIGH = (-0.5, -2.0), (0.5, 1.0)
POLICIES = {
    "linear": Policy(3, LOW, HIGH),
    "linear without bias": Policy(3, LOW, HIGH, bias=False),
    "mlp": Policy(3, LOW, HIGH, hidden_sizes=(5, 4)),
    "mlp without bias": Policy(3, LOW, HIGH, hidden_sizes=(5,), bias=False),
    "not clipped": Policy(3, LOW, HIGH, hidden_sizes=(5,), clip=False),
    "relu": Policy(3, LOW, HIGH, hidden_sizes=(5, 4), activation="relu"),
    "elu": Policy(3, LOW, HIGH, hidden_sizes=(5, 4), activation="elu"),
    "silu": Policy(3, LOW, HIGH, hidden_sizes=(5, 4), activation="silu"),
    "squashed": Policy(3, LOW, HIGH, hidden_sizes=(5,), squash=True),
    "half bounded": Policy(3, (-math.inf, -1.0), (0.25, math.inf)),
}


NOT_CLIPPED = ("not clipped", "half bounded", "squashed")


def trained(policy, normalized=True):
    rng = np.random.default_rng(3)
    theta = rng.normal(size=policy.num_parameters).astype(np.float32)
    mean = np.array([1.0, -20.0, 0.0], np.float32) * normalized
    std = np.array([0.5, 4.0, 1.0], np.float32) if normalized else mean + 1
    return TrainedPolicy(policy, theta, mean, std)


def run_folder(path, policy, env="swimmer"):
    settings = asdict(make_config(env, "pes"))
    (path / "policy").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"settings": settings}))
    if isinstance(policy, TrainedPolicy):
        save_policy(path / "policy" / "best.npz", policy)
    else:
        save_parameters(path / "policy" / "best.npz", policy)
    return path


ACTIVATE = {
    "tanh": np.tanh,
    "relu": lambda y: y * (y > 0),
    "elu": lambda y: np.where(y > 0, y, np.exp(np.minimum(y, 0)) - 1),
    "silu": lambda y: y / (1 + np.exp(-y)),
}


def by_hand(policy, observation):
    """The action of one observation in float64, from theta alone."""
    theta, at = policy.theta.astype(float), 0
    x = (observation - policy.mean.astype(float)) / policy.std.astype(float)
    sizes = (*policy.policy.hidden_sizes, policy.policy.action_size)
    for layer, outputs in enumerate(sizes):
        y = np.zeros(outputs)
        for row in range(outputs):
            for value in x:
                y[row] += theta[at] * value
                at += 1
        if policy.policy.bias:
            y += theta[at : at + outputs]
            at += outputs
        x = ACTIVATE[policy.policy.activation](y) if layer + 1 < len(sizes) else y
    assert at == len(theta)
    if policy.policy.squash:
        return np.array([0.0, -0.5]) + np.array([0.5, 1.5]) * np.tanh(x)
    if policy.policy.clip:
        x = np.clip(x, policy.policy.action_low, policy.policy.action_high)
    return x


def load(kind, path):
    """The exported file as its users load it."""
    if kind == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(path)
        return lambda x: session.run(["action"], {"observation": x})[0]
    if kind == "torchscript":
        torch = pytest.importorskip("torch")
        function = torch.jit.load(path)
        return lambda x: function(torch.from_numpy(x)).numpy()
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)

    def act(x):
        x = (x - arrays["mean"]) / arrays["std"]
        for layer in range((len(arrays) - 6) // 2):
            x = ACTIVATE[str(arrays["activation"])](x) if layer else x
            x = x @ arrays[f"weight{layer}"].T + arrays[f"bias{layer}"]
        if arrays["squash"]:
            half_width = (arrays["high"] - arrays["low"]) / 2
            return arrays["low"] + half_width * (1 + np.tanh(x))
        return np.minimum(np.maximum(x, arrays["low"]), arrays["high"])

    return act


FORMATS = ("numpy", "onnx", "torchscript")
NEEDED = {"onnx": "onnx", "torchscript": "torch"}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_actions_are_those_of_the_policy(kind, name, tmp_path, capsys):
    if kind in NEEDED:
        pytest.importorskip(NEEDED[kind])
    policy = trained(POLICIES[name], normalized="bias" not in name)
    run = run_folder(tmp_path / "run", policy)
    assert export.main([str(run), "--format", kind]) == 0
    (path,) = (run / "export").iterdir()
    assert str(path) in capsys.readouterr().out
    act = load(kind, str(path))
    for batch in (1, 7):  # Any number of observations at once.
        size = (batch, 3)
        noise = np.random.default_rng(batch).normal(size=size).astype(np.float32)
        observations = policy.mean + policy.std * noise
        actions = act(observations)
        assert actions.dtype == np.float32
        expected = [by_hand(policy, each) for each in observations]
        np.testing.assert_allclose(actions, expected, rtol=2e-6, atol=2e-6)
    assert np.any((actions == LOW) | (actions == HIGH)) == (name not in NOT_CLIPPED)


def test_a_policy_of_half_bounds_is_cut_at_them_alone(tmp_path):
    policy = trained(POLICIES["half bounded"], normalized=False)
    run = run_folder(tmp_path / "run", policy)
    path, _ = export.export(export.ExportOptions(str(run), "numpy"))
    actions = load("numpy", path)(np.float32(1e3) * np.eye(3, dtype=np.float32))
    assert (actions[:, 0] <= 0.25).all()
    assert (actions[:, 1] >= -1).all()
    assert np.abs(actions).max() > 100


def test_the_model_says_what_it_is_of(tmp_path):
    onnx = pytest.importorskip("onnx")
    run = run_folder(tmp_path / "run", trained(POLICIES["mlp"]))
    path, difference = export.export(export.ExportOptions(str(run)))
    assert difference < 1e-6
    model = onnx.load(path)
    properties = {each.key: each.value for each in model.metadata_props}
    assert (properties["env"], properties["agent"]) == ("swimmer", "pes")
    (given,), (taken,) = model.graph.input, model.graph.output
    assert (given.name, taken.name) == ("observation", "action")
    shapes = [
        [each.dim_param or each.dim_value for each in value.type.tensor_type.shape.dim]
        for value in (given, taken)
    ]
    assert shapes == [["batch", 3], ["batch", 2]]


def test_onnx_is_checked_without_onnxruntime(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    import pes_rl.exporting.onnx_format as module

    monkeypatch.setattr(
        module, "find_spec", lambda name: None if name == "onnxruntime" else True
    )
    run = run_folder(tmp_path / "run", trained(POLICIES["mlp"]))
    _, difference = export.export(export.ExportOptions(str(run)))
    assert difference < 1e-6


def test_an_export_that_differs_is_not_written():
    policy = trained(POLICIES["mlp"])
    layers = to_layers(policy)
    shift = 1e-4

    def act(observations):
        return policy(observations) + np.float32(shift)

    with pytest.raises(ValueError, match=r"differ by 1\.0e-04"):
        check_export(policy, layers, act)
    shift = 1e-7
    assert check_export(policy, layers, act) < 1e-6


@pytest.mark.parametrize(
    ("kind", "package", "help_text"),
    [("onnx", "onnx", r"pip install 'pes-rl\[onnx\]'"), ("torchscript", "torch", "")],
)
def test_a_missing_package_is_named(kind, package, help_text, tmp_path, monkeypatch):
    module = __import__(f"pes_rl.exporting.{kind}_format", fromlist=["find_spec"])
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    run = run_folder(tmp_path / "run", trained(POLICIES["mlp"]))
    with pytest.raises(ValueError, match=f"{package}.*{help_text}"):
        export.export(export.ExportOptions(str(run), kind))


def test_an_unrolled_problem_has_no_policy(tmp_path, capsys):
    parameters = TrainedParameters(("a", "b"), np.zeros(2, np.float32))
    run = run_folder(tmp_path / "run", parameters, "unrolled:toy-regression")
    assert export.main([str(run)]) == 2
    assert "parameters and no policy" in capsys.readouterr().err
    np.load(run / "policy" / "best.npz")["theta"]  # As the message says.


def test_a_network_of_the_user_is_refused_as_one(tmp_path, capsys):
    """Without advice for a place where the network can be given, which is none here."""
    run = run_folder(tmp_path / "run", trained(POLICIES["mlp"]))
    content = json.loads((run / "config.json").read_text())
    content["settings"]["policy"] = "package:Net"
    (run / "config.json").write_text(json.dumps(content))
    assert export.main([str(run)]) == 2
    assert "only linear and mlp policies can be exported" in capsys.readouterr().err


def test_out_names_the_file(tmp_path):
    policy = trained(POLICIES["linear"])
    run = run_folder(tmp_path / "run", policy)
    out = tmp_path / "new" / "mine.npz"
    export.main([str(run), "--format", "numpy", "--out", str(out)])
    assert out.read_bytes() == to_numpy(to_layers(policy))


def test_a_policy_file_in_no_run_is_exported_beside_it(tmp_path, capsys):
    policy = trained(POLICIES["mlp"])
    save_policy(tmp_path / "policy.npz", policy, {"env": "hopper"})
    assert export.main([str(tmp_path / "policy.npz"), "--format", "numpy"]) == 0
    path = tmp_path / "export" / "policy.npz"
    assert str(path) in capsys.readouterr().out
    assert path.read_bytes() == to_numpy(to_layers(policy))


def test_the_model_of_a_policy_file_says_what_the_file_does(tmp_path):
    onnx = pytest.importorskip("onnx")
    environment = {"env": "hopper", "horizon": 500}
    save_policy(tmp_path / "policy.npz", trained(POLICIES["mlp"]), environment)
    path, _ = export.export(export.ExportOptions(str(tmp_path / "policy.npz")))
    assert path == tmp_path / "export" / "policy.onnx"
    properties = {each.key: each.value for each in onnx.load(path).metadata_props}
    assert (properties["env"], properties["horizon"]) == ("hopper", "500")


def test_the_policy_file_of_a_run_is_exported_into_the_run(tmp_path):
    run = run_folder(tmp_path / "run", trained(POLICIES["linear"]))
    options = export.ExportOptions(str(run / "policy" / "best.npz"), "numpy")
    path, _ = export.export(options)
    assert path == run / "export" / "best.npz"


def test_a_file_of_parameters_is_no_policy(tmp_path, capsys):
    parameters = TrainedParameters(("a", "b"), np.zeros(2, np.float32))
    save_parameters(tmp_path / "theta.npz", parameters)
    assert export.main([str(tmp_path / "theta.npz")]) == 2
    assert "is not a policy saved by pes_rl" in capsys.readouterr().err
