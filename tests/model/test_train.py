"""Training: a first model from the paper market, the gate, names that last, recorded days, exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from model_parts import BAR_NS, bars_of, draw, known_model

from engine.domain.instruments import SIM_UNIVERSE
from engine.market.replay import collect_bars, sequences
from engine.market.state import Market
from engine.model import train
from engine.model.bundle import Registry
from engine.model.evaluate import gate, split
from engine.model.fit import FitFailed, fit, match_states, score
from engine.model.history import recorded_bars, ticks_of
from engine.paper.market.history import generate_history
from engine.store.blocks import BlockKind, Header, block_records, encode
from engine.store.segments import SegmentWriter


@pytest.fixture(scope="module")
def first_model():
    return train.train_synthetic(SIM_UNIVERSE[:4], seed=5, hours=0.4, restarts=2)


def test_a_first_model_from_the_paper_market_says_what_it_is_and_what_it_is_worth(first_model) -> None:
    m = first_model
    m.check()
    assert m.provenance == "synthetic"
    assert m.states == 3
    assert (np.diff(m.means[:, 3]) > 0).all()  # in order of log realised variance
    assert m.metrics["holdout"]["invalid_share"] < 0.15
    assert min(m.metrics["overall"]["occupancy"]) > 0.03
    fold = m.metrics["walk_forward"][0]
    assert fold["loglik_k3"] > fold["loglik_k1"]
    assert abs(m.metrics["worth"]["regime_return_correlation_next_bar"]) < 0.25
    assert "not directional alpha" in m.metrics["note"]


def test_fitting_recovers_known_regimes() -> None:
    truth = known_model()
    train_x = [draw(truth, 500, seed=s)[0] for s in range(4)]
    model = fit(train_x, 3, restarts=3, seed=1)
    ours = model.means * model.scale + model.shift
    theirs = truth.means * truth.scale + truth.shift
    assert np.abs((ours - theirs) / truth.scale).max() < 0.25
    assert model.metrics["monotone"]
    held = draw(truth, 1_000, seed=77)[0]
    assert score(model, [held]).loglik == pytest.approx(score(truth, [held]).loglik, abs=0.1)


def test_stuck_features_do_not_break_the_fit() -> None:
    x, _ = draw(known_model(), 400, seed=1)
    x[100:200] = x[100]
    x[:, 4] = 7.0
    model = fit([x], 2, restarts=2)
    model.check()


def test_too_little_data_is_refused_with_the_numbers() -> None:
    with pytest.raises(FitFailed, match="40 bars"):
        fit([np.zeros((40, 6))], 2)


def test_a_regime_keeps_its_name_over_a_retrain() -> None:
    old = known_model()
    order = np.array([2, 0, 1])
    new = replace(
        old,
        startprob=old.startprob[order],
        transmat=old.transmat[np.ix_(order, order)],
        means=old.means[order] + 0.1,
        covars=old.covars[order],
    )
    matched = match_states(new, old)
    np.testing.assert_allclose(matched.means, old.means + 0.1)
    np.testing.assert_allclose(matched.transmat, old.transmat)


def test_the_split_is_in_time_and_the_same_for_all_symbols() -> None:
    bars = bars_of(known_model(), 100, 3)
    early, late = split(bars, 0.0, 0.8), split(bars, 0.8, 1.0)
    assert len(early) + len(late) == len(bars)
    assert early["t_end_ns"].max() < late["t_end_ns"].min()


def test_a_gap_ends_a_sequence() -> None:
    bars = bars_of(known_model(), 60, 1)
    bars["t_end_ns"][30:] += 5 * BAR_NS
    bars["valid"][45] = 0
    assert [len(s) for s in sequences(bars, BAR_NS)] == [30, 15, 14]


def test_the_gate_keeps_an_incumbent_that_explains_the_holdout_better() -> None:
    truth = known_model()
    x = [draw(truth, 600, seed=9)[0]]
    good = score(truth, x)
    worse = score(replace(truth, means=truth.means[::-1] * 0.2), x)
    refused = gate(truth, worse, good, good)
    assert not refused.promoted
    assert "log-likelihood" in refused.reasons[0]
    assert gate(truth, good, good, worse).promoted
    assert gate(truth, good, good, None).promoted


def test_the_gate_names_an_empty_regime_and_a_holdout_that_does_not_fit() -> None:
    truth = known_model()
    good = score(truth, [draw(truth, 600, seed=9)[0]])
    bad = replace(good, invalid_share=0.4)
    empty = replace(good, occupancy=(0.0, 0.5, 0.5))
    verdict = gate(truth, bad, empty, None)
    assert len(verdict.reasons) == 2


def _config(tmp_path: Path, mode: str = "sim") -> Path:
    path = tmp_path / "l2dash.toml"
    account = 'account = "DU123"' if mode == "paper" else ""
    path.write_text(
        f'[instance]\nmode = "{mode}"\nstate_dir = "{tmp_path / "var"}"\n[gateway]\n{account}\n'
        "[model]\ntrain_hours = 0.3\nrestarts = 1\n"
    )
    return path


def test_retraining_promotes_the_first_model_and_reports_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = train.main(["--retrain", "--synthetic", "--json", "--config", str(_config(tmp_path))])
    out = capsys.readouterr()
    assert code == 0
    assert json.loads(out.out)["promoted"] is True
    assert "market" in out.err
    assert Registry(tmp_path / "var" / "models").load().version == 1


def test_retraining_against_a_better_incumbent_keeps_it_and_exits_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], first_model
) -> None:
    registry = Registry(tmp_path / "var" / "models")
    sharper = replace(first_model, provenance="recorded")  # a synthetic candidate never replaces a recorded model
    registry.promote(registry.add(sharper).version)
    assert train.main(["--retrain", "--synthetic", "--config", str(_config(tmp_path))]) == 3
    assert "kept model 1" in capsys.readouterr().out
    assert registry.current == 1
    assert registry.versions() == [1, 2]


def test_retraining_without_recorded_ticks_fails_in_paper_and_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["--retrain", "--config", str(_config(tmp_path, "paper"))]) == 1
    assert "--collect" in capsys.readouterr().err


def test_two_trainings_at_once_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with train._exclusive(tmp_path / "var" / "models"):
        assert train.main(["--retrain", "--synthetic", "--config", str(_config(tmp_path))]) == 1
    assert "another training" in capsys.readouterr().err


def test_arguments_that_make_no_sense_exit_2(tmp_path: Path) -> None:
    for argv in ([], ["--retrain", "--days", "0"], ["--retrain", "--nonsense"]):
        with pytest.raises(SystemExit) as stopped:
            train.main(argv)
        assert stopped.value.code == 2


def _record(state_dir: Path, ticks: np.ndarray, *, lose: int = 0) -> None:
    """Write ticks as the recorder does, leaving out ``lose`` records in the middle."""
    writer = SegmentWriter(state_dir / "ticks", "ticks", 1 << 26)
    size = block_records(BlockKind.TICK)
    ticks["sequence"] = np.arange(len(ticks))
    middle = len(ticks) // 2
    kept = np.concatenate([ticks[:middle], ticks[middle + lose :]])
    for at in range(0, len(kept), size):
        part = kept[at : at + size]
        first, after = int(part["sequence"][0]), int(part["sequence"][-1]) + 1
        writer.append(20240102, encode(Header(BlockKind.TICK, first, after, 1, 0, 0, 1), part))
    writer.sync()
    writer.close()


@pytest.fixture(scope="module")
def recorded_ticks() -> np.ndarray:
    return ticks_of(generate_history(SIM_UNIVERSE, 11, 900.0, messages_per_s=500.0, start_ns=1))


def test_retraining_uses_recorded_days(
    tmp_path: Path, recorded_ticks: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    _record(tmp_path / "var", recorded_ticks)
    assert train.main(["--retrain", "--config", str(_config(tmp_path))]) in (0, train.KEPT)
    model = Registry(tmp_path / "var" / "models").load(1)
    assert model.window == "recorded 20240102 to 20240102"
    assert model.provenance == "synthetic"  # recorded from the paper market: still not a real one
    assert "generated" not in capsys.readouterr().out


def test_recorded_bars_equal_those_of_the_live_kernels_and_lost_records_void_the_books(
    tmp_path: Path, recorded_ticks: np.ndarray
) -> None:
    _record(tmp_path / "whole", recorded_ticks)
    bars, dates = recorded_bars(tmp_path / "whole", SIM_UNIVERSE, 5)
    live = collect_bars(Market(SIM_UNIVERSE), [recorded_ticks])
    assert dates == [20240102]
    assert bars.tobytes() == live.tobytes()
    _record(tmp_path / "gap", recorded_ticks, lose=1_000)
    broken, _ = recorded_bars(tmp_path / "gap", SIM_UNIVERSE, 5)
    assert 0.4 < (broken["valid"] == 1).mean() < 0.6
