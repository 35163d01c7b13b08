"""Verdicts against exact ones: activation patterns of tiny networks are enumerated, each with a linear program."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from jaxtyping import config
from scipy.optimize import linprog
from torch import nn

from offprint.methods.certify.onnx_import.convert import from_onnx
from offprint.methods.certify.verification import inputs as input_splitting
from offprint.methods.certify.verification import kinks
from offprint.methods.certify.verification.kinks import make_root
from offprint.methods.certify.verification.leaves import decide
from offprint.methods.certify.verification.multipliers import Domains
from offprint.methods.certify.verification.relaxed import Network
from offprint.methods.certify.verification.task import Task
from offprint.methods.certify.verification.verifier import verify
from offprint.methods.certify.vnnlib import Case, Polytope, Property, robustness

F64 = torch.float64


@pytest.fixture(autouse=True)
def _unchecked() -> Iterator[None]:
    """Without jaxtyping's checks of every small function: branch and bound calls them too often."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", before)


def relu_network(seed: int, sizes=(3, 4, 3, 3), gain=1.5) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(sizes):
        layer = nn.Linear(n_in, n_out, dtype=F64)
        layer.weight.data = torch.randn(n_out, n_in, generator=generator, dtype=F64) * gain / n_in**0.5
        layer.bias.data = torch.randn(n_out, generator=generator, dtype=F64) * 0.3
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def piece(weights, biases, pattern):
    """The affine map of an activation pattern, and ``rows @ x <= bounds`` where it is the network's."""
    slope, offset = np.eye(weights[0].shape[1]), np.zeros(weights[0].shape[1])
    rows, bounds = [], []
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        slope, offset = weight @ slope, weight @ offset + bias
        if k == len(weights) - 1:
            return slope, offset, np.array(rows), np.array(bounds)
        on = np.array(pattern[: len(bias)], dtype=bool)
        pattern = pattern[len(bias) :]
        side = np.where(on, -1.0, 1.0)
        rows.extend(side[:, None] * slope)
        bounds.extend(-side * offset)
        slope, offset = on[:, None] * slope, on * offset
    raise AssertionError


def exact_margin(model, lower, upper, matrix) -> float:
    """The least of ``max(matrix @ y)`` over the box."""
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    weights = [layer.weight.detach().numpy() for layer in linear]
    biases = [layer.bias.detach().numpy() for layer in linear]
    best = math.inf
    for pattern in itertools.product((0, 1), repeat=sum(len(b) for b in biases[:-1])):
        slope, offset, rows, bounds = piece(weights, biases, pattern)
        margin = np.hstack([matrix @ slope, -np.ones((len(matrix), 1))])
        inside = np.hstack([rows, np.zeros((len(rows), 1))])
        solved = linprog(
            np.r_[np.zeros(len(lower)), 1.0],
            A_ub=np.vstack([margin, inside]),
            b_ub=np.r_[-matrix @ offset, bounds],
            bounds=[*zip(lower, upper, strict=True), (None, None)],
        )
        best = min(best, solved.fun) if solved.status == 0 else best
    return best


def tiny(seed: int):
    rng = np.random.default_rng(seed)
    model = relu_network(seed)
    lower = rng.uniform(-1, 0, 3)
    upper = lower + rng.uniform(0.3, 1.5, 3)
    matrix = rng.normal(size=(1 + seed % 3, 3))
    return model, lower, upper, matrix


def asked(lower, upper, *rows) -> Property:
    polytopes = tuple(Polytope(np.atleast_2d(matrix), np.atleast_1d(bound)) for matrix, bound in rows)
    return Property(len(lower), polytopes[0].matrix.shape[1], (Case(np.asarray(lower), np.asarray(upper), polytopes),))


@functools.cache
def tiny_margin(seed: int) -> float:
    return exact_margin(*tiny(seed))


@pytest.mark.parametrize("branching", ["input", "relu"])
@pytest.mark.parametrize("seed", [pytest.param(0, marks=pytest.mark.slow), 1, 2])
def test_verdicts_near_the_boundary_are_exact(seed, branching) -> None:
    model, lower, upper, matrix = tiny(seed)
    for shift in (-1e-2, 1e-2):
        bound = np.full(len(matrix), tiny_margin(seed) + shift)
        # Without an attack the counterexample must come from branch and bound.
        found = verify(model, asked(lower, upper, (matrix, bound)), branching=branching, attack_restarts=0, batch=16)
        if shift < 0:
            assert found.status == "verified"
            assert 0 < found.bound <= -shift + 1e-6
            assert found.n_open == 0
        else:
            assert found.status == "counterexample"
            point = found.counterexample.reshape(-1)
            assert bool(((point >= torch.from_numpy(lower)) & (point <= torch.from_numpy(upper))).all())
            assert bool((torch.from_numpy(matrix) @ model(point) <= torch.from_numpy(bound)).all())
            assert torch.equal(found.output, model(found.counterexample)[0])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 9))
@pytest.mark.parametrize("method", ["crown", "alpha-crown"])
def test_no_verdict_is_ever_wrong(seed, method) -> None:
    model, lower, upper, matrix = tiny(seed)
    margin = tiny_margin(seed)
    for shift, branching in itertools.product((-1e-3, 1e-3), ("input", "relu")):
        bound = np.full(len(matrix), margin + shift)
        found = verify(
            model,
            asked(lower, upper, (matrix, bound)),
            branching=branching,
            method=method,
            attack_restarts=0,
            time_limit=120,
        )
        assert found.status == ("verified" if shift < 0 else "counterexample")


def test_bounds_of_split_domains_hold_on_their_points_and_leaves_are_exact() -> None:
    model, lower, upper, matrix = tiny(1)
    task = Task(model, asked(lower, upper, (matrix, np.zeros(len(matrix)))), (1, 3), True, F64, torch.device("cpu"))
    root = make_root(Network(task, 16), task.targets[0])
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(4000, 3, generator=generator, dtype=F64) * torch.from_numpy(upper - lower)
    points += torch.from_numpy(lower)
    model.requires_grad_(False)
    first, second = model[0](points), model[2](torch.relu(model[0](points)))
    margin = task.targets[0].margin(model(points))
    whole = root.whole()
    open_kinks = ((root.lower < 0) & (root.upper > 0)).nonzero().flatten()
    patterns = torch.sign(torch.cat([first, second], 1)[:16])
    patterns[:, (root.lower >= 0) | (root.upper <= 0)] = 0
    plain, _ = root.bound(many(whole, patterns), 0, math.inf)
    better, kept = root.bound(many(whole, patterns), 30, math.inf)
    # Steps of so large a rate often lose what was gained; the best is kept, and where it was is returned with it.
    after = [
        plain.least,
        *(root.bound(many(whole, patterns), n, math.inf)[0].least for n in (1, 2, 4, 8)),
        better.least,
    ]
    assert all(bool((later >= sooner - 1e-12).all()) for sooner, later in itertools.pairwise(after))
    torch.testing.assert_close(root.bound(kept, 0, math.inf)[0].least, better.least, rtol=0, atol=1e-9)
    assert float((better.least - plain.least).max()) > 1e-3
    signs = torch.cat([first, second], 1)
    for k, pattern in enumerate(patterns):
        inside = ((signs * pattern) >= 0).all(1)
        assert bool((margin[inside] >= better.least[k] - 1e-9).all())
        leaf = decide(root, many(whole, pattern[None]), 1e-8)
        assert leaf.margin is not None
        assert bool((margin[inside] >= leaf.margin - 1e-7).all())
        assert float(better.least[k]) <= leaf.margin + 1e-7
        assert float(task.targets[0].margin(model(leaf.point[None]))) == pytest.approx(leaf.margin, abs=1e-6)
    # With one kink open the network is not affine.
    undone = patterns[0].clone()
    undone[open_kinks[0]] = 0
    assert decide(root, many(whole, undone[None]), 1e-8).margin is None or len(open_kinks) == 0


def many(domain: Domains, patterns: torch.Tensor) -> Domains:
    n = len(patterns)
    return replace(domain.pick([0] * n), signs=patterns)


def acas_like():
    model = relu_network(0, (5, 20, 20, 20, 5), gain=1.3)
    rng = np.random.default_rng(0)
    lower = rng.uniform(-1, 0.5, 5)
    return model, lower, lower + 0.4


def test_a_network_with_five_inputs_is_decided_by_splitting_them() -> None:
    model, lower, upper = acas_like()
    points = np.random.default_rng(1).uniform(lower, upper, (20_000, 5))
    outputs = model(torch.from_numpy(points)).detach().numpy()
    row = np.array([1.0, -1.0, 0.0, 0.0, 0.0])
    seen = float((outputs @ row).min())
    below = verify(model, asked(lower, upper, (row, seen - 0.05)), time_limit=60)
    assert (below.status, below.branching) == ("verified", "input")
    assert below.n_domains > 10
    assert verify(model, asked(lower, upper, (row, seen + 1e-3)), time_limit=60).status == "counterexample"
    # A conjunction that no output meets, and the same next to one that is met.
    both = (np.stack([row, -row]), np.array([0.0, -1e-3]))
    met = (row, float(np.quantile(outputs @ row, 0.9)))
    assert verify(model, asked(lower, upper, both), time_limit=60).status == "verified"
    assert verify(model, asked(lower, upper, both, met), time_limit=60).status == "counterexample"


def twins(seed: int, width: int = 25, depth: int = 6) -> nn.Sequential:
    """Six hidden layers of 50 units: a network and a copy of it with its units shuffled and rescaled, side by side."""
    generator = torch.Generator().manual_seed(seed)
    linear = [one for one in relu_network(seed, (5, *[width] * depth, 1), gain=1.4) if isinstance(one, nn.Linear)]
    order, scale = torch.arange(5), torch.ones(5, dtype=F64)
    layers: list[nn.Module] = []
    for k, layer in enumerate(linear):
        n, is_last = layer.out_features, k == len(linear) - 1
        shuffled = torch.arange(n) if is_last else torch.randperm(n, generator=generator)
        scaled = torch.ones(n, dtype=F64) if is_last else 0.5 + torch.rand(n, generator=generator, dtype=F64)
        weight = scaled[:, None] * layer.weight.data[shuffled][:, order] / scale
        both = torch.cat([layer.weight.data, weight]) if k == 0 else torch.block_diag(layer.weight.data, weight)
        made = nn.Linear(both.shape[1], len(both), dtype=F64)
        made.weight.data, made.bias.data = both, torch.cat([layer.bias.data, scaled * layer.bias.data[shuffled]])
        layers += [made, nn.ReLU()]
        order, scale = shuffled, scaled
    return nn.Sequential(*layers[:-1])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_six_layers_of_fifty_units_are_decided_where_the_truth_is_known(seed) -> None:
    model = twins(seed)
    lower = np.random.default_rng(seed).uniform(-0.5, 0.4, 5)
    upper = lower + 0.1
    points = torch.from_numpy(np.random.default_rng(1).uniform(lower, upper, (2000, 5)))
    outputs = model(points).detach()
    # The two outputs are the same function, which no bound of them sees at once.
    torch.testing.assert_close(outputs[:, 0], outputs[:, 1], rtol=0, atol=1e-12)
    spread = float(outputs[:, 0].std())
    same = verify(model, asked(lower, upper, (np.array([1.0, -1.0]), -spread)), attack_restarts=0, time_limit=280)
    assert (same.status, same.branching) == ("verified", "input")
    planted = asked(lower, upper, (np.array([1.0, 0.0]), float(outputs[:, 0].min())))
    assert verify(model, planted, time_limit=280).status == "counterexample"


def test_when_the_time_is_over_the_answer_is_unknown_with_a_sound_bound(monkeypatch) -> None:
    model = relu_network(0, (5, 10, 10, 3), gain=1.5)
    lower, upper = -np.ones(5), np.ones(5)
    points = np.random.default_rng(1).uniform(lower, upper, (5000, 5))
    row = np.array([1.0, -1.0, 0.0])
    seen = float((model(torch.from_numpy(points)).detach().numpy() @ row).min())
    calls = []
    for branching in ("input", "relu"):
        for limit in (1e-9, 1.0):
            # A clock that ticks when it is asked: the third round finds the time over.
            ticks = itertools.count(step=0.1)
            monkeypatch.setattr("offprint.methods.certify.verification.task.time.monotonic", lambda: next(ticks))  # noqa: B023
            found = verify(
                model,
                asked(lower, upper, (row, seen - 0.05)),
                branching=branching,
                time_limit=limit,
                batch=4,
                attack_restarts=1,
                progress=lambda *now: calls.append(now),
            )
            assert found.status == "unknown"
            assert found.n_open > 0
            assert found.counterexample is None
            assert found.bound <= 0.05
            assert found.bound > -math.inf or limit < 1
            assert found.seconds > limit
    assert calls
    assert all(n_open >= 0 and n_decided >= 0 for n_decided, n_open, _ in calls)


def onnx_network():
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    shapes = {"w": (3, 1, 2, 2), "b": (3,), "v": (3, 3, 1, 1), "u": (3, 12), "c": (3,)}
    weights = [numpy_helper.from_array(rng.normal(size=s).astype(np.float32) * 0.8, n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["z"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Relu", ["z"], ["h"]),
        helper.make_node("Conv", ["h", "v"], ["q"], kernel_shape=[1, 1]),
        helper.make_node("Add", ["q", "h"], ["s"]),
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "u", "c"], ["y"], transB=1),
    ]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 1, 4, 4]), ("y", [1, 3]))]
    graph = helper.make_graph(nodes, "conv", infos[:1], infos[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_residual_convolution_from_onnx_and_its_counterexample_in_onnxruntime() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    proto = onnx_network()
    model = from_onnx(proto)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).uniform(0, 1, (1, 1, 4, 4)).astype(np.float32)
    label = int(session.run(None, {"x": x})[0].argmax())
    statuses = set()
    for radius in (0.01, 0.1, 0.5):
        prop = robustness(x, label, radius, 3, lower=0.0, upper=1.0)
        found = verify(model, prop, branching="relu", time_limit=60)
        statuses.add(found.status)
        if found.status == "counterexample":
            assert found.counterexample.shape == (1, 1, 4, 4)
            point = found.counterexample.numpy()
            output = session.run(None, {"x": point})[0]
            assert int(output.argmax()) != label
            assert np.abs(point - x).max() <= radius + 1e-6
        else:
            assert found.status == "verified"
            points = np.clip(x + np.random.default_rng(2).uniform(-radius, radius, (500, 1, 1, 4, 4)), 0, 1)
            sampled = [session.run(None, {"x": p.astype(np.float32)})[0].argmax() for p in points]
            assert set(map(int, sampled)) == {label}
    assert statuses == {"verified", "counterexample"}


def test_networks_without_kinks_and_without_a_batch() -> None:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([[1.0, -1.0], [0.5, 2.0]], dtype=F64))

        def forward(self, x):
            return torch.tanh(self.weight @ x.reshape(2))

    lower, upper = np.array([-1.0, -1.0]), np.array([1.0, 1.0])
    # tanh(a - b) is at least -tanh(2) = -0.964...
    for bound, status in ((-0.97, "verified"), (-0.96, "counterexample")):
        prop = asked(lower, upper, (np.array([1.0, 0.0]), bound))
        assert verify(Alone(), prop, input_shape=(2,), attack_restarts=0, time_limit=60).status == status


def test_an_output_that_nothing_is_asked_of_and_a_property_without_a_case() -> None:
    model = relu_network(0)
    anything = Property(3, 3, (Case(np.zeros(3), np.ones(3), (Polytope(np.zeros((0, 3)), np.zeros(0)),)),))
    assert verify(model, anything).status == "counterexample"
    nothing = verify(model, Property(3, 3, ()))
    assert (nothing.status, nothing.bound, nothing.n_domains) == ("verified", math.inf, 0)


def test_a_counterexample_counts_only_as_the_model_was_given() -> None:
    """In float32 the weight 1 + 1e-9 is 1: what float64 finds between them is none for the given model."""
    model = nn.Linear(1, 1, bias=False).double()
    model.weight.data = torch.tensor([[1 + 1e-9]], dtype=F64)
    prop = asked([0.0], [1.0], (np.array([-1.0]), -1 - 5e-10))
    assert verify(model, prop).status == "counterexample"
    assert verify(model.float(), prop, time_limit=60).status == "unknown"


def test_a_point_that_rounding_in_the_given_precision_saves_is_no_counterexample() -> None:
    # (x + 2**25) - 2**25 is x in float64 and 0 for x in [0, 1] in float32.
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    for layer, bias in zip(model, (2.0**25, -(2.0**25)), strict=True):
        layer.weight.data, layer.bias.data = torch.ones(1, 1), torch.tensor([bias])
    prop = asked([0.0], [1.0], (np.array([-1.0]), -0.5))  # an output of at least 0.5 would be wrong
    point = torch.ones(1, 1, dtype=F64)
    single = Task(model, prop, (1, 1), True, F64, torch.device("cpu"))
    assert float(single.run(point)) == 1.0
    assert single.counterexample(point) is None
    found = Task(model.double(), prop, (1, 1), True, F64, torch.device("cpu")).counterexample(point)
    assert found is not None
    assert float(found[1]) == 1.0


def test_what_overflows_proves_nothing() -> None:
    """The output is 0 up to 0.5 and falls to minus infinity from there on; its bounds are infinite or no numbers."""
    layers = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)).double()
    for layer, weight, bias in zip(layers[::2], (1e200, 1e200, -1.0), (-0.5e200, 0.0, 0.0), strict=True):
        layer.weight.data.fill_(weight)
        layer.bias.data.fill_(bias)
    wrong = (np.array([1.0]), -1.0)
    for branching in ("relu", "input"):
        found = verify(layers, asked([0.0], [0.9], wrong), branching=branching, attack_restarts=0, time_limit=200)
        assert found.status == "counterexample"


def test_a_leaf_is_decided_by_multipliers_and_not_by_the_tolerance_of_the_solver(monkeypatch) -> None:
    """A solver that says too much, that a leaf is empty or its margin larger than it is, is not believed."""
    model, lower, upper, matrix = tiny(1)
    task = Task(model, asked(lower, upper, (matrix, np.zeros(len(matrix)))), (1, 3), True, F64, torch.device("cpu"))
    root = make_root(Network(task, 16), task.targets[0])
    middle = torch.from_numpy((lower + upper) / 2)[None]
    model.requires_grad_(False)
    first = model[0](middle)
    pattern = torch.sign(torch.cat([first, model[2](torch.relu(first))], 1))
    pattern[:, (root.lower >= 0) | (root.upper <= 0)] = 0
    domain = many(root.whole(), pattern)
    honest = decide(root, domain, 1e-8)
    assert honest.margin is not None
    assert honest.margin <= float(task.targets[0].margin(model(middle)))

    def boasting(*args, **keywords):
        solved = linprog(*args, **keywords)
        solved.fun += 1.0
        return solved

    def empty(*args, **keywords):
        solved = linprog(*args, **keywords)
        solved.status = 2
        return solved

    monkeypatch.setattr("offprint.methods.certify.verification.leaves.linprog", boasting)
    assert decide(root, domain, 1e-8).margin == pytest.approx(honest.margin, abs=1e-9)
    monkeypatch.setattr("offprint.methods.certify.verification.leaves.linprog", empty)
    assert decide(root, domain, 1e-8).margin is None


def test_the_kink_that_is_split_is_the_one_whose_halves_have_the_best_bounds() -> None:
    for seed in (1, 2, 4):
        model, lower, upper, matrix = tiny(seed)
        task = Task(model, asked(lower, upper, (matrix, np.zeros(len(matrix)))), (1, 3), True, F64, torch.device("cpu"))
        root = make_root(Network(task, 16), task.targets[0])
        bounded, domain = root.bound(root.whole(), 10, math.inf)
        open_kinks = bounded.cost[0].isfinite().nonzero().flatten().tolist()
        scores = {}
        for k in open_kinks:
            least = []
            for sign in (1.0, -1.0):
                signs = domain.signs.clone()
                signs[0, k] = sign
                least.append(max(float(root.least(replace(domain, signs=signs))[0]), float(bounded.least[0])))
            scores[k] = min(least) + 0.1 * min(max(least), 0.0)
        (chosen,) = kinks._choose(root, domain, bounded.least, bounded.cost, 3)
        assert scores[chosen] == pytest.approx(max(scores.values()), abs=1e-12)
        assert len(set(scores.values())) > 1


@pytest.mark.slow
@pytest.mark.parametrize("tried", [1, 20])
def test_trying_the_halves_of_kinks_takes_fewer_domains(tried, monkeypatch) -> None:
    """Three hidden layers of 50 units, decided by splitting kinks alone."""
    monkeypatch.setattr(kinks, "N_TRIED", tried)
    model = relu_network(1, (5, 50, 50, 50, 5), gain=1.3)
    lower = np.random.default_rng(1).uniform(-1, 0.5, 5)
    points = torch.from_numpy(np.random.default_rng(5).uniform(lower, lower + 0.13, (5000, 5)))
    row = np.array([1.0, -1.0, 0.0, 0.0, 0.0])
    margins = (model(points) @ torch.from_numpy(row)).detach()
    wrong = (row, float(margins.min() - 0.2 * margins.std()))
    found = verify(model, asked(lower, lower + 0.13, wrong), branching="relu", attack_restarts=0, time_limit=240)
    assert (found.status, found.branching) == ("verified", "relu")
    assert (found.n_domains > 400) if tried == 1 else (found.n_domains < 200)


def test_halving_covers_the_whole_box() -> None:
    generator = torch.Generator().manual_seed(0)
    lower = torch.rand(6, 4, generator=generator, dtype=F64)
    upper = lower + torch.rand(6, 4, generator=generator, dtype=F64)
    upper[0] = lower[0]
    slope = torch.rand(6, 4, generator=generator, dtype=F64)
    halves = input_splitting._halves(slope, lower, upper)
    assert halves[0] is None
    for i in range(1, 6):
        (low_a, high_a), (low_b, high_b) = halves[i]
        changed = (high_a != upper[i]).nonzero().flatten().tolist()
        assert changed == [int(((slope[i] + 0.05 * slope[i].mean()) * (upper[i] - lower[i])).argmax())]
        assert torch.equal(low_a, lower[i])
        assert torch.equal(high_b, upper[i])
        assert torch.equal(high_a[changed], low_b[changed])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "magic"}, "method: expected one of"),
        ({"branching": "both"}, "branching: expected one of"),
        ({"time_limit": 0}, "time_limit: expected more than 0"),
        ({"time_limit": math.nan}, "time_limit"),
        ({"batch": 0}, "batch: expected at least 1"),
        ({"attack_steps": 0}, "attack_steps: expected at least 1"),
        ({"attack_restarts": -1}, "attack_restarts: expected at least 0"),
        ({"dtype": torch.float16}, "dtype: expected one of"),
        ({"input_shape": (1, 4)}, r"input_shape: \(1, 4\) has 4 elements, the property 3"),
        ({"input_shape": (3, 1)}, "model: it cannot be run"),
    ],
)
def test_bad_arguments_are_named(arguments, message) -> None:
    prop = asked(np.zeros(3), np.ones(3), (np.ones(3), 0.0))
    with pytest.raises((ValueError, TypeError), match=message):
        verify(relu_network(0), prop, **arguments)


def test_models_that_do_not_fit_are_refused() -> None:
    model, prop = relu_network(0), asked(np.zeros(3), np.ones(3), (np.ones(2), 0.0))
    with pytest.raises(ValueError, match="model: it has 3 outputs, the property 2"):
        verify(model, prop)
    model[0].bias.data[0] = math.nan
    with pytest.raises(ValueError, match=r"model: 0\.bias is not finite"):
        verify(model, asked(np.zeros(3), np.ones(3), (np.ones(3), 0.0)))
