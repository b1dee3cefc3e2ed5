"""The analysis functions against closed forms, on arrays made for it."""

import itertools

import numpy as np
import pytest
from support.models import tiny_model
from support.params import random_params

from albert_jax.analysis.attention import attention_maps, head_entropy, layer_parameters
from albert_jax.analysis.classification import calibration, confusion, surest_errors
from albert_jax.analysis.curves import Curve, run_names, smooth
from albert_jax.analysis.masked_lm import accuracy_by, frequency_bands, piece_counts
from albert_jax.analysis.parameters import (
    count_parameters,
    moment_statistics,
    parameter_statistics,
)
from albert_jax.analysis.representations import (
    effective_rank,
    layer_angles,
    layer_distances,
    layer_similarity,
    linear_cka,
    nearest_pieces,
    relative_changes,
    spectrum,
)
from albert_jax.predict.pretrained import PretrainedModel

MASK = np.array([[1, 1, 1], [1, 1, 0]])


def rotation(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s], [s, c]])


def test_layers_that_turn_and_stretch_are_measured_as_such():
    start = np.random.default_rng(0).standard_normal((2, 3, 2))
    start /= np.linalg.norm(start, axis=-1, keepdims=True)
    states = np.stack([start, 3 * start, 3 * start @ rotation(30).T, 3 * start @ rotation(31).T])
    states[:, 1, 2] = 1e6 * np.arange(4)[:, None]  # padding, of whatever
    np.testing.assert_allclose(layer_angles(states, MASK), [0, 30, 1], atol=1e-9)
    chord = [2 * 3 * np.sin(np.radians(d / 2)) for d in (30, 1)]
    np.testing.assert_allclose(layer_distances(states, MASK), [2, *chord], rtol=1e-9)


def test_opposite_is_half_a_turn():
    states = np.stack([np.ones((1, 1, 4)), -np.ones((1, 1, 4))])
    np.testing.assert_allclose(layer_angles(states, np.ones((1, 1))), [180])


@pytest.mark.parametrize(
    ("share", "groups"), [("all", 1), ("all", 2), ("attention", 1), ("ffn", 2), ("none", 1)]
)
def test_attention_maps_lead_to_the_hidden_states_of_the_model(share, groups):
    """The maps, put through the rest of each layer, give the layer's output."""
    config = tiny_model(share=share, num_hidden_groups=groups, num_hidden_layers=5)
    params = random_params(config)
    model = PretrainedModel(config, params, None)
    ids = np.random.default_rng(1).integers(5, 96, (2, 7))
    mask = np.ones_like(ids)
    mask[1, 4:] = 0
    hidden = model.encode_ids(ids, np.zeros_like(ids), mask).hidden_states
    maps = attention_maps(params, config, hidden, mask)
    assert maps.shape == (5, 2, 4, 7, 7)
    np.testing.assert_allclose(maps.sum(axis=-1), 1, atol=1e-5)
    assert (maps[:, 1, :, :, 4:] == 0).all()
    for layer, (x, after) in enumerate(itertools.pairwise(hidden)):
        own = layer_parameters(params, config, layer)
        found = rest_of_layer(x, maps[layer], own, config.layer_norm_eps)
        np.testing.assert_allclose(found[mask > 0], after[mask > 0], atol=2e-4)


def rest_of_layer(x, maps, own, eps):
    def dense(x, part):
        return x @ part["kernel"] + part["bias"]

    def norm(x, part):
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
        return centred / scale * part["scale"] + part["bias"]

    def gelu(x):
        return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    attention, ffn = own["attention"], own["ffn"]
    values = dense(x, attention["value"]).reshape(*x.shape[:2], maps.shape[1], -1)
    mixed = np.einsum("BNTS,BSNH->BTNH", maps, values).reshape(x.shape)
    x = norm(x + dense(mixed, attention["output"]), attention["norm"])
    return norm(x + dense(gelu(dense(x, ffn["intermediate"])), ffn["output"]), ffn["norm"])


def test_layers_of_several_blocks_are_refused():
    config = tiny_model(inner_group_num=2)
    with pytest.raises(ValueError, match="inner_group_num=2"):
        layer_parameters(random_params(config), config, 0)


def test_entropy_is_that_of_uniform_and_of_pointed_attention():
    maps = np.zeros((1, 2, 2, 3, 3))
    maps[:, :, 0, :, 1] = 1  # head 0 looks at one piece
    maps[:, 0, 1] = 1 / 3  # head 1 at all alike
    maps[:, 1, 1, :2, :2] = 1 / 2
    maps[:, 1, 1, 2] = [1, 0, 0]  # padding, which must not count
    expected = (3 * np.log(3) + 2 * np.log(2)) / 5
    np.testing.assert_allclose(head_entropy(maps, MASK), [[0, expected]])


def test_nearest_pieces_are_those_at_the_smallest_angle():
    angles = np.radians([0, 10, 50, 180])
    table = np.stack([np.cos(angles), np.sin(angles)], axis=1) * [[1], [100], [0.1], [5]]
    found = nearest_pieces(table, np.array([0, 2]), 2)
    np.testing.assert_array_equal(found.ids, [[1, 2], [1, 0]])
    expected = np.cos(np.radians([[10, 50], [40, 50]]))
    np.testing.assert_allclose(found.cosines, expected)
    with pytest.raises(ValueError, match="count=4 must be from 1 to 3"):
        nearest_pieces(table, np.array([0]), 4)


def test_spectrum_is_the_variance_along_each_axis():
    table = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]]) @ rotation(20).T + 7
    np.testing.assert_allclose(spectrum(table), [0.9, 0.1])
    assert effective_rank(np.array([0.25] * 4)) == pytest.approx(4)
    assert effective_rank(np.array([1.0, 0.0])) == pytest.approx(1)


def test_cka_sees_through_rotation_scale_and_shift():
    x = np.random.default_rng(0).standard_normal((50, 2))
    assert linear_cka(x, 3 * x @ rotation(70).T + 5) == pytest.approx(1)
    # Of two axes of equal variance one is kept: 1 / √2 by the definition.
    signs = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    assert linear_cka(signs, signs[:, :1]) == pytest.approx(1 / np.sqrt(2))
    assert linear_cka(signs[:, :1], signs[:, 1:]) == pytest.approx(0)


def test_layer_similarity_compares_each_layer_with_each():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3, 2, 3, 4)), rng.standard_normal((2, 2, 3, 5))
    found = layer_similarity(a, b, MASK)
    assert found.shape == (3, 2)
    assert found[2, 1] == linear_cka(a[2][MASK > 0], b[1][MASK > 0])


def test_changes_are_relative_and_by_path():
    before = {"a": {"kernel": np.array([3.0, 4]), "bias": np.zeros(1)}, "old": np.ones(1)}
    after = {"a": {"kernel": np.array([3.0, 5]), "bias": np.ones(1)}, "new": np.ones(1)}
    assert relative_changes(before, after) == {"a/kernel": 0.2, "a/bias": np.inf}
    assert relative_changes({"a": np.ones(1)}, {"a": np.ones(2)}) == {}


def test_parameters_and_moments_in_numbers():
    params = {"a": {"kernel": np.array([[3.0, -5], [1, 1]])}}
    statistics = parameter_statistics(params)["a/kernel"]
    assert (statistics.size, statistics.mean, statistics.largest) == (4, 0, 5)
    assert (statistics.norm, statistics.std) == (6, 3)
    assert count_parameters(params) == 4
    mu = {"still": np.full(4, 2.0), "noise": np.zeros(4), "unseen": np.zeros(2)}
    nu = {"still": np.full(4, 4.0), "noise": np.full(4, 9.0), "unseen": np.zeros(2)}
    found = moment_statistics(mu, nu)
    assert found == {"still": (2, 1), "noise": (3, 0), "unseen": (0, 0)}


def test_calibration_of_a_model_that_says_what_it_knows_and_of_one_that_boasts():
    labels = np.array([0] * 9 + [1] + [0] * 5 + [1] * 5)
    probs = np.array([[0.9, 0.1]] * 10 + [[0.5001, 0.4999]] * 10)
    honest = calibration(probs, labels, bins=5)
    np.testing.assert_array_equal(honest.count, [10, 0, 0, 0, 10])
    np.testing.assert_allclose(honest.accuracy[[0, 4]], [0.5, 0.9])
    np.testing.assert_allclose(honest.confidence[[0, 4]], [0.5001, 0.9])
    assert np.isnan(honest.accuracy[1])
    assert honest.error == pytest.approx(0.00005)
    boasting = calibration(np.array([[1.0, 0.0]] * 20), labels)
    assert boasting.error == pytest.approx(0.3)
    assert boasting.count[-1] == 20


def test_errors_are_counted_and_the_surest_come_first():
    probs = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
    labels = np.array([0, 1, 0, 1])
    np.testing.assert_array_equal(confusion(labels, probs.argmax(1), 2), [[1, 1], [1, 1]])
    np.testing.assert_array_equal(confusion(np.array([2]), np.array([0]), 3)[2], [1, 0, 0])
    np.testing.assert_array_equal(surest_errors(probs, labels, 5), [2, 1])
    np.testing.assert_array_equal(surest_errors(probs, labels, 1), [2])


def test_accuracy_by_group_and_frequency_bands():
    found = accuracy_by(np.array([1, 0, 1, 1], bool), np.array([3, 3, 1, 3]))
    np.testing.assert_array_equal(found.group, [1, 3])
    np.testing.assert_allclose(found.accuracy, [1, 2 / 3])
    np.testing.assert_array_equal(found.count, [1, 3])
    counts = piece_counts([{"pieces": np.array([1, 1, 3])}, {"pieces": np.array([3])}], 5)
    np.testing.assert_array_equal(counts, [0, 2, 0, 2, 0])
    np.testing.assert_array_equal(
        piece_counts([{"pieces": np.array([1])}] * 3, 2, limit=2), [0, 2]
    )
    np.testing.assert_array_equal(
        frequency_bands(np.array([0, 7, 9, 1, 1]), edges=(1, 3)), [2, 1, 0, 1, 2]
    )


def test_curves_are_smoothed_by_means_of_neighbours():
    found = smooth(Curve(np.array([10, 20, 30, 40]), np.array([1.0, 2, 6, 1])), 3)
    np.testing.assert_allclose(found.steps, [20, 30])
    np.testing.assert_allclose(found.values, [3, 3])
    short = Curve(np.array([1]), np.array([2.0]))
    assert smooth(short, 3) is short


def test_runs_are_named_by_what_tells_them_apart():
    assert run_names(["runs/a", "runs/b"]) == ["a", "b"]
    assert run_names(["x/cola/seed_0", "x/sst2/seed_0"]) == ["cola/seed_0", "sst2/seed_0"]
    with pytest.raises(ValueError, match="runs must be distinct"):
        run_names(["runs/a", "runs/a"])
