"""The forward filter: equal to hmmlearn's, honest about what does not fit, and the same compiled or not."""

from __future__ import annotations

import numpy as np
import pytest
from hmmlearn import _hmmc, hmm
from hypothesis import given, settings
from hypothesis import strategies as st
from model_parts import BAR_NS, draw, known_model
from scipy.special import logsumexp

from engine.model import filter as filters
from engine.model.filter import RegimeFilter, filter_sequence, forward
from shm.layouts import MODEL

STOCKS = np.array([0, 1], np.int64)


def regime_filter(model, **options):
    models = np.zeros(2, MODEL)
    f = RegimeFilter(models, **options)
    f.load(model)
    return f, models


def step(f, x, n, valid=1):
    f.step(STOCKS, np.stack([x, x]), np.array([valid, valid]), n * BAR_NS)


@pytest.mark.parametrize("states", [1, 2, 3, 5, 8])
def test_filtered_probabilities_equal_the_forward_pass_of_hmmlearn(states: int) -> None:
    model = known_model(states)
    x, _ = draw(model, 400, seed=11)
    theirs = hmm.GaussianHMM(n_components=states, covariance_type="full")
    theirs.n_features = 6
    theirs.startprob_, theirs.transmat_ = model.startprob, model.transmat
    theirs.means_, theirs.covars_ = model.means, model.covars
    z = (x - model.shift) / model.scale
    total, lattice = _hmmc.forward_log(model.startprob, model.transmat, theirs._compute_log_likelihood(z))
    expected = np.exp(lattice - logsumexp(lattice, axis=1, keepdims=True))
    found, steps = filter_sequence(model, x)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    assert steps.sum() == pytest.approx(total, abs=1e-7)
    np.testing.assert_allclose(np.cumsum(steps), logsumexp(lattice, axis=1), rtol=1e-10)


def test_filtered_is_not_smoothed_the_future_never_changes_a_probability() -> None:
    model = known_model()
    x, _ = draw(model, 200, seed=3)
    whole, _ = filter_sequence(model, x)
    half, _ = filter_sequence(model, x[:100])
    assert (whole[:100] == half).all()


def test_the_regime_is_found_most_of_the_time_where_regimes_differ() -> None:
    model = known_model()
    x, path = draw(model, 2_000, seed=4)
    found, _ = filter_sequence(model, x)
    assert (found.argmax(axis=1) == path).mean() > 0.95


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=6, max_size=6), min_size=1, max_size=30)
)
def test_probabilities_stay_a_distribution_whatever_the_features_are(rows: list[list[float]]) -> None:
    f, models = regime_filter(known_model())
    for n, x in enumerate(rows):
        step(f, np.array(x), n)
        if models[0]["bars"]:
            assert models[0]["probability"].sum() == pytest.approx(1.0)
            assert 1 / 3 - 1e-9 <= models[0]["confidence"] <= 1.0 + 1e-9
            assert np.isfinite(models[0]["confidence_ema"])


def test_compiled_and_interpreted_filter_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    model = known_model()
    x, _ = draw(model, 80, seed=9)
    x[40] = np.nan
    compiled, models = regime_filter(model)
    for n in range(80):
        step(compiled, x[n], n)
    for name in ("forward", "drift", "step_bars"):
        monkeypatch.setattr(filters, name, getattr(filters, name).py_func)
    plain, expected = regime_filter(model)
    for n in range(80):
        step(plain, x[n], n)
    for name in MODEL.names:
        np.testing.assert_allclose(models[name], expected[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_confidence_is_averaged_over_a_minute() -> None:
    model = known_model()
    f, models = regime_filter(model, ema_s=60.0)
    sure = model.means[0] * model.scale + model.shift
    torn = model.means[:2].mean(axis=0) * model.scale + model.shift
    for n in range(20):
        step(f, sure, n)
    before = models[0]["confidence_ema"]
    step(f, torn, 20)
    weight = 1 - np.exp(-10 / 60)
    assert models[0]["confidence_ema"] == pytest.approx(before + weight * (models[0]["confidence"] - before))


def test_a_symbol_is_warming_for_half_a_minute() -> None:
    model = known_model()
    f, models = regime_filter(model, warmup_s=30.0)
    x, _ = draw(model, 4, seed=2)
    seen = []
    for n in range(4):
        step(f, x[n], n)
        seen.append((int(models[0]["warming"]), int(models[0]["valid"])))
    assert seen == [(1, 0), (1, 0), (0, 1), (0, 1)]


def test_data_of_the_training_kind_is_valid_and_tripled_features_are_not_however_confident() -> None:
    model = known_model()
    f, models = regime_filter(model)
    x, _ = draw(model, 60, seed=21)
    for n in range(60):
        step(f, x[n], n)
    assert models[0]["valid"] == 1
    assert models[0]["invalid_share"] <= 0.07
    for n in range(60):
        step(f, (x[n] - model.shift) * 3 + model.shift, 60 + n)
    assert models[0]["valid"] == 0
    assert models[0]["invalid_share"] > 0.5
    assert models[0]["confidence"] > 0.9


def test_a_stuck_feed_becomes_invalid_although_it_fits() -> None:
    model = known_model()
    f, models = regime_filter(model)
    x = model.means[1] * model.scale + model.shift
    for n in range(12):
        step(f, x, n)
    assert models[0]["invalid_share"] == 0.0
    assert models[0]["valid"] == 0


def test_bars_without_a_book_rest_the_filter_and_leave_no_verdict_behind() -> None:
    model = known_model()
    f, models = regime_filter(model)
    x, _ = draw(model, 20, seed=8)
    for n in range(20):
        step(f, x[n], n)
    probability = models[0]["probability"].copy()
    for n in range(20, 26):
        step(f, np.zeros(6), n, valid=0)
    assert (models[0]["probability"] == probability).all()
    assert models[0]["bars"] == 20
    assert models[0]["valid"] == 0
    step(f, x[0], 26)
    assert models[0]["valid"] == 1


def test_an_outage_of_a_minute_with_a_standing_book_does_not_fail_the_validity_check() -> None:
    model = known_model()
    f, models = regime_filter(model)
    x, _ = draw(model, 30, seed=8)
    for n in range(30):
        step(f, x[n], n)
    idle = model.shift + model.scale * 50.0
    for n in range(30, 36):
        step(f, idle, n)
    step(f, x[0], 36)
    assert models[0]["invalid_share"] < 0.15
    assert models[0]["valid"] == 1


def test_drift_is_small_on_training_data_and_large_on_a_shifted_feature() -> None:
    model = known_model()
    rng = np.random.default_rng(6)
    f, models = regime_filter(model)
    for n in range(180):
        step(f, rng.normal(0, 1.3, 6) * model.scale + model.shift, n)
    assert models[0]["psi"] < 0.25
    for n in range(180):
        step(f, (rng.normal(0, 1.3, 6) + 3.0) * model.scale + model.shift, n)
    assert models[0]["psi"] > 1.0


def test_swapping_a_model_keeps_the_regime_and_measures_fit_anew() -> None:
    model = known_model()
    f, models = regime_filter(model)
    x, _ = draw(model, 30, seed=13)
    for n in range(30):
        step(f, x[n], n)
    regime = int(models[0]["regime"])
    f.load(known_model(version=2))
    assert models["model_id"].tolist() == [2, 2]
    step(f, x[29], 31)
    assert int(models[0]["regime"]) == regime
    assert models[0]["bars"] == 31


def test_a_state_once_given_up_can_come_back() -> None:
    alpha = np.array([1.0, 0.0])
    never = np.array([[1.0, 0.0], [0.0, 1.0]])
    means = np.array([[0.0], [50.0]])
    white, constant = np.ones((2, 1, 1)), np.zeros(2)
    for _ in range(3):
        forward(alpha, np.array([50.0]), 0, np.array([0.5, 0.5]), never, means, white, constant)
    assert alpha[1] > 0.99
