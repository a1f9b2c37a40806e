"""Each metric on codes whose meaning is known: the known answer lies in its interval."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from oxcart.train import frame_baseline, statistics
from oxcart.train.evaluate import strategies
from oxcart.train.evaluate.strategies.compass import _actions_by_token
from oxcart.train.evaluate.strategies.consistency import _variances
from oxcart.train.evaluate.strategies.permutation import _ordered
from oxcart.train.evaluate.strategies.transfer import between, transfer
from oxcart.train.evaluate.strategy import Number
from oxcart.train.flow import STILL, VARIANTS, WEIGHTED, flow_meter, mean_flows
from oxcart.train.laq.config import QuantizerConfig
from oxcart.train.laq.quantize import build_quantizer
from planted import context, measured, planted, skipped, with_frames


def holds(number: Number, value: float, within: float = 0.0) -> None:
    """The interval holds the value, or nearly."""
    assert number.low is not None
    assert number.high is not None
    assert number.low - within <= value <= number.high + within, number


KINDS = ("environments", "datasets")


@functools.cache
def of(strategy: str, codes: str) -> dict[str, Number]:
    """Numbers of a strategy on planted codes."""
    return measured(strategy, planted(codes))


@pytest.mark.parametrize("kind", KINDS)
def test_arrows_of_directions_agree_and_others_do_not(kind: str) -> None:
    assert of("compass", "direction")[f"cosine_{kind}"].low > 0.98
    holds(of("compass", "noise")[f"cosine_{kind}"], 0)
    assert of("compass", "direction")["cosine_held_out"].low > 0.95


def test_directions_of_its_own_in_each_environment_do_not_agree() -> None:
    found = of("compass", "own")
    assert found["cosine_environments"].value < 0
    assert found["cosine_environments"].low < -0.9, "six environments do not tell what others are like"
    told = of("consistency", "own")
    assert told["actions_within_environments"].low > 0.8, "they do tell actions"
    assert told["actions_kept_environments"].high < 0.3, "but not alike"


@pytest.mark.parametrize("what", ["actions", "flow"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_code_tells_everywhere_is_consistent(what: str, kind: str) -> None:
    found = of("consistency", "direction")
    # The direction is 8 unit vectors, times a length: the share of the variance that it tells is known.
    length = 1 + 0.25 * np.arange(4)
    share = length.mean() ** 2 / (length**2).mean()
    holds(found[f"{what}_within_{kind}"], share, 0.01)
    holds(found[f"{what}_across_{kind}"], share, 0.01)
    holds(found[f"{what}_kept_{kind}"], 1, 0.02)


@pytest.mark.parametrize("codes", ["environment", "noise"])
def test_codes_that_tell_nothing_are_not_consistent(codes: str) -> None:
    pairs = planted(codes)
    if codes == "environment":  # every group has codes of its own, so none can be compared
        pairs = pairs.take(np.isin(pairs.environment, ["kitchen0", "kitchen1"]))
        assert "actions_across_environments" not in measured("consistency", pairs)
    else:
        found = measured("consistency", pairs)
        holds(found["actions_across_environments"], 0, 0.002)
        holds(found["actions_within_environments"], 0, 0.002)
        assert "actions_kept_environments" not in found, "there is nothing to keep"


@pytest.mark.parametrize(
    ("codes", "direction", "magnitude"),
    [("direction", 1, 0), ("magnitude", 0, 1), ("environment", 0, 0), ("noise", 0, 0)],
)
def test_direction_and_magnitude_are_told_apart(codes: str, direction: int, magnitude: int) -> None:
    found = of("magnitude", codes)
    holds(found["direction"], direction, 0.02)
    holds(found["magnitude"], magnitude, 0.02)
    holds(found["beyond_direction"], magnitude, 0.02)
    for number in of("flow_tokens", codes).values():
        holds(number, direction, 0.02)


def test_a_direction_in_which_things_move_farther_tells_no_more_than_itself() -> None:
    """Four directions hold the longer half of the motions, so a direction tells one of two bits of length."""
    pairs = planted("magnitude")
    length = pairs.codes[:, 0]
    direction = 4 * (length // 2) + np.random.default_rng(2).integers(0, 4, len(pairs))
    unit = np.stack([np.cos(direction * np.pi / 4), np.sin(direction * np.pi / 4)], 1)
    flow = np.repeat((unit * (4 + length[:, None]))[:, None], 3, 1)
    pairs = replace(pairs, flow=flow, codes=direction[:, None])
    found = measured("magnitude", pairs)
    holds(found["magnitude"], 0.5, 0.02)
    holds(found["beyond_direction"], 0, 0.02)
    rest = measured("magnitude", replace(pairs, codes=length[:, None] % 2))
    holds(rest["magnitude"], 0.5, 0.02)
    holds(rest["beyond_direction"], 1, 0.02)


@pytest.mark.parametrize(
    ("codes", "environment"), [("direction", 0), ("magnitude", 0), ("environment", 1), ("noise", 0)]
)
def test_only_codes_of_the_environment_give_it_away(codes: str, environment: int) -> None:
    found = of("disentanglement", codes)
    number = found["about_environment"]
    if environment:
        assert number.low > 0.6, "above shuffles of the episodes, which keep some of it by chance"
    else:
        holds(number, 0, 0.003)


def test_tokens_follow_from_like_actions_where_they_mean_directions() -> None:
    assert of("disentanglement", "direction")["entropy_given_actions"].high < 0.2
    for codes in ("environment", "noise"):
        holds(of("disentanglement", codes)["entropy_given_actions"], 1, 0.02)


def test_the_probe_reads_directions_and_nothing_else() -> None:
    for value in ("dx", "dy"):
        assert of("probe", "direction")[f"r2_{value}"].low > 0.85
        assert of("probe", "direction")[f"gain_{value}"].low > 0.8
        holds(of("probe", "noise")[f"r2_{value}"], 0, 0.05)
        holds(of("probe", "environment")[f"r2_{value}"], 0, 0.05)


def test_the_probe_is_that_of_scikit_learn() -> None:
    pairs = planted("direction")
    assert pairs.actions is not None
    new, other = pairs.split == "val", np.zeros_like(pairs.actions)
    for dataset in ("left", "right"):
        mine = pairs.dataset == dataset
        other[mine] = StandardScaler().fit(pairs.actions[mine & ~new]).transform(pairs.actions[mine])
    hot = OneHotEncoder(sparse_output=False).fit_transform(pairs.codes)
    made = Ridge(1.0).fit(hot[~new], other[~new]).predict(hot[new])
    expected = r2_score(other[new], made, multioutput="raw_values")
    found = of("probe", "direction")
    assert [found[f"r2_{name}"].value for name in ("dx", "dy")] == pytest.approx(expected.tolist(), abs=1e-4)
    # Features at random are worse than the mean, by a little; the gain is over the mean then.
    assert found["gain_dx"].value == found["r2_dx"].value


def test_what_the_frame_tells_as_well_is_no_gain() -> None:
    pairs = planted("direction")
    assert pairs.actions is not None
    sight = replace(pairs, features=np.hstack([pairs.features, pairs.actions[:, :1]]).astype(np.float32))
    found = measured("probe", sight)
    assert found["r2_dx"].low > 0.85
    assert found["gain_dx"].high < 0, "the frame tells the length as well"
    assert found["gain_dy"].low > 0.8
    new, other = pairs.split == "val", np.zeros_like(pairs.actions)
    for dataset in ("left", "right"):
        mine = pairs.dataset == dataset
        other[mine] = StandardScaler().fit(pairs.actions[mine & ~new]).transform(pairs.actions[mine])
    places = statistics.numbered(pairs.environment[~new])
    made = frame_baseline.predict(sight.features[~new], other[~new], places, sight.features[new])
    by_frame = r2_score(other[new][:, 0], made[:, 0])
    assert found["gain_dx"].value == pytest.approx(found["r2_dx"].value - by_frame, abs=1e-3)


def test_text_is_told_by_codes_of_the_instruction_alone() -> None:
    assert of("text", "instruction")["sequences"].low > 0.8
    assert of("text", "instruction")["tokens"].low > 0.8
    assert of("text", "instruction")["sequences"].value == pytest.approx(1)
    assert of("text", "instruction")["tokens"].value == pytest.approx(1)
    for codes in ("direction", "noise"):
        for number in of("text", codes).values():
            holds(number, 0, 0.003)


def test_states_are_not_told_by_directions() -> None:
    holds(of("state", "direction")["told"], 0, 0.005)


def test_states_are_told_by_codes_that_go_with_them() -> None:
    pairs = planted("direction")
    assert pairs.actions is not None
    unit = pairs.actions / np.linalg.norm(pairs.actions, axis=1, keepdims=True)
    unit[pairs.dataset == "left"] *= -1  # what a code says in one dataset is not what it says in the other
    found = measured("state", replace(pairs, state=np.column_stack([unit, np.ones(720)])))["told"]
    assert found.value == pytest.approx(np.cos(0.05 / np.sqrt(3)) ** 2, abs=0.002), (
        "all but the planted noise"
    )


def test_each_mean_of_flow_is_a_number_of_its_own() -> None:
    pairs, noise = planted("direction"), planted("noise", seed=1)
    assert pairs.flow is not None
    assert noise.flow is not None
    for number, variant in enumerate(VARIANTS):
        flow = noise.flow.copy()
        flow[:, number] = pairs.flow[:, number]
        found = measured("flow_tokens", replace(pairs, flow=flow), context(quick=True))
        for name in VARIANTS:
            assert (found[f"direction_{name}"].value > 0.9) == (name == variant), (variant, name)


def test_numbers_of_the_codebook_are_those_of_scipy() -> None:
    counts = np.array([[400, 200, 120, 0, 0, 0, 0, 0], [480, 240, 0, 0, 0, 0, 0, 0]])
    codes = np.stack([np.repeat(np.arange(8), own) for own in counts], 1)
    found = measured("codebook", replace(planted("noise"), codes=codes))
    assert found["utilisation"].value == pytest.approx(5 / 16)
    assert found["entropy"].value == pytest.approx(stats.entropy(counts, axis=1, base=2).mean())
    assert found["perplexity"].value == pytest.approx(np.exp(stats.entropy([400, 80, 120, 120])))


def test_tables_hold_means_and_variances_of_each_token() -> None:
    pairs = planted("direction")
    assert pairs.actions is not None
    rows = _actions_by_token(pairs).rows
    assert len(rows) == 16
    for dataset, token, count, mean, covariance in rows:
        own = pairs.actions[(pairs.dataset == dataset) & (pairs.codes[:, 0] == int(token[2:]))]
        assert count == len(own)
        assert mean == pytest.approx(own.mean(0).tolist(), abs=1e-6)
        assert np.array(covariance) == pytest.approx(np.cov(own, rowvar=False), abs=1e-6)
    scaled = np.concatenate(
        [StandardScaler().fit_transform(pairs.actions[pairs.dataset == one]) for one in ("left", "right")]
    )
    tokens = _variances(scaled, pairs.codes, 8, statistics.numbered(pairs.dataset))
    assert len(tokens) == 8
    for token, count, within, between_, ratio in tokens:
        groups = [
            scaled[(pairs.dataset == one) & (pairs.codes[:, 0] == int(token[2:]))]
            for one in ("left", "right")
        ]
        sizes = [len(one) for one in groups]
        spread = [one.var(0, ddof=1).sum() for one in groups]
        inside = np.average(spread, weights=sizes)
        apart = (groups[0].mean(0) - groups[1].mean(0)) ** 2 / 2
        across = apart.sum() - np.mean(np.array(spread) / sizes)
        assert count == sum(sizes)
        assert within == pytest.approx(inside / scaled.var(0).sum(), abs=1e-4)
        assert between_ == pytest.approx(across / scaled.var(0).sum(), abs=1e-4)
        assert ratio == pytest.approx(across / inside, abs=1e-4)


def test_arrows_that_are_turned_in_what_is_held_out_do_not_agree_with_those_seen() -> None:
    pairs = planted("direction")
    for angle in (90, 180):
        turned = replace(
            pairs,
            codes=np.where((pairs.place == "seen")[:, None], pairs.codes + angle // 45, pairs.codes) % 8,
        )
        found = measured("compass", turned)["cosine_held_out"]
        assert found.value == pytest.approx(np.cos(np.radians(angle)), abs=0.02)


def test_the_codebook_counts() -> None:
    found = measured("codebook", planted("noise", places=2))
    assert found["utilisation"].value == 1
    assert found["entropy"].value == pytest.approx(3, abs=0.03)
    assert found["perplexity"].value == pytest.approx(8, rel=0.03), "two places that repeat are one"


def test_codes_that_move_images_transfer_and_ignored_ones_do_not() -> None:
    meter = flow_meter("dis", None, context().device)
    assert callable(meter)
    pairs = with_frames(planted("direction"))
    found = measured("transfer", pairs, context(meter))
    for scope in ("within_environments", "across_environments", "across_datasets"):
        assert found[f"angle_{scope}"].high < 15, scope
        assert found[f"error_{scope}"].value > 5, scope
    found = measured("transfer", pairs, context(meter, ignores=True))
    assert found["angle_across_datasets"].value == 90
    assert found["error_across_datasets"].value == 1
    noise = measured("transfer", with_frames(planted("noise"), 240), context(meter))
    holds(noise["angle_across_environments"], 90, 3)


def test_angles_between_motions_are_in_degrees() -> None:
    east, up, west, still = (3.0, 0.0), (0.0, 5.0), (-2.0, 0.0), (0.0, 0.9 * STILL)
    one = np.array([east, east, east, (1, 1), east, still])
    other = np.array([(1, 0), up, west, up, still, east])
    assert between(one, other).tolist() == pytest.approx([0, 90, 180, 45, 90, math.nan], nan_ok=True)


def test_errors_of_transfer_are_ratios_of_sums_of_squares() -> None:
    pairs, given = with_frames(planted("noise"), 40), context()
    assert pairs.frames is not None
    groups = pairs.environment
    for alike in (True, False):
        found = transfer(pairs, given, groups, alike=alike)
        assert found is not None
        of, episodes = groups[pairs.framed], pairs.episodes[pairs.framed]
        assert ((of[found.a] == of[found.b]) == alike).all()
        assert (episodes[found.a] != episodes[found.b]).all()
        first, second = (pairs.frames[found.b, step].astype(float) for step in (0, 1))
        codes = pairs.codes[pairs.framed]
        drawn = [given.decode(first.astype(np.uint8), codes[one]).astype(float) for one in (found.a, found.b)]
        errors = np.stack([((one - second) ** 2).mean((1, 2, 3)) for one in drawn], 1)
        assert found.ratio == pytest.approx(errors)
        number = measured("transfer", pairs, given)[
            "error_within_environments" if alike else "error_across_environments"
        ]
        assert number.value == pytest.approx(errors[:, 0].sum() / errors[:, 1].sum())


def test_a_decoder_that_codes_alone_move_transfers_nothing_by_that() -> None:
    """Codes at random move unrelated frames alike, but not as the pairs did that have those codes."""
    meter = flow_meter("dis", None, context().device)
    assert callable(meter)
    given, pairs = context(meter), with_frames(planted("noise"), 240)
    assert pairs.frames is not None
    groups = pairs.dataset
    found = transfer(pairs, given, groups, alike=False)
    assert found is not None
    first, codes = pairs.frames[:, 0], pairs.codes[pairs.framed]
    own = meter(np.stack([first, given.decode(first, codes)], 1))[found.a, WEIGHTED]
    drawn = meter(np.stack([first[found.b], found.made], 1))[:, WEIGHTED]
    assert np.nanmean(between(own, drawn)) < 15, "what codes of A do on A and on B"
    number = measured("transfer", pairs, given)["angle_across_datasets"]
    assert number.value == pytest.approx(90, abs=12), "what codes of A do on B, and what A did"
    assert "layered" in number.read
    assert (
        "layered"
        not in measured("transfer", pairs, context(meter, ignores=True))["angle_across_datasets"].read
    )


def test_tokens_with_codebooks_of_their_own_have_no_other_order() -> None:
    pairs = with_frames(planted("direction", places=2))
    (why,) = skipped("permutation", pairs, context(shared=False)).values()
    assert why.startswith("each token has a codebook of its own")
    assert not measured("permutation", pairs, context(shared=False))
    strategy = strategies.load(["permutation"])["permutation"]
    assert list(strategy.draw(pairs, context(shared=False))) == []


@pytest.mark.parametrize(("kind", "own"), [("nsvq", True), ("nsvq", False), ("vq", True), ("fsq", True)])
def test_a_quantizer_says_whether_its_tokens_share_a_codebook(kind: str, own: bool) -> None:
    shared = build_quantizer(QuantizerConfig(kind=kind, shared=not own, codes=8, dim=3)).shared
    assert shared == (kind != "nsvq" or not own), "kinds of the package have one codebook"


def test_an_order_that_matters_costs_and_one_that_does_not_is_free() -> None:
    pairs = planted("direction", places=2)
    pairs.codes[:, 1] = (pairs.codes[:, 1] + 3) % 8
    found = measured("permutation", with_frames(pairs))
    assert all(number.low > 5 for number in found.values())
    found = measured("permutation", with_frames(pairs), context(ignores=True))
    assert {name: number.value for name, number in found.items()} == {
        "sorted": 1,
        "reversed": 1,
        "shuffled": 1,
    }


def test_orders_are_those_that_they_say_and_their_errors_over_that_of_the_original() -> None:
    pairs = planted("direction", places=3)
    pairs.codes[:, 1:] = np.random.default_rng(0).integers(0, 8, (720, 2))
    pairs, given = with_frames(pairs), context()
    assert pairs.frames is not None
    codes = pairs.codes[pairs.framed]
    kept, ascending, reverse, shuffled = _ordered(codes, 0)
    assert (kept == codes).all()
    assert ascending.tolist() == [sorted(row) for row in codes.tolist()]
    assert reverse.tolist() == [row[::-1] for row in codes.tolist()]
    assert [sorted(row) for row in shuffled.tolist()] == ascending.tolist()
    assert (shuffled != codes).any()
    found, second = measured("permutation", pairs, given), pairs.frames[:, 1].astype(float)
    own, *others = [
        ((given.decode(pairs.frames[:, 0], order) - second) ** 2).sum()
        for order in (codes, ascending, reverse, shuffled)
    ]
    values = [found[name].value for name in ("sorted", "reversed", "shuffled")]
    assert values == pytest.approx([other / own for other in others])


def test_mean_flows_look_at_what_moves() -> None:
    field = np.zeros((1, 10, 10, 2))
    field[0, 2:4, :5] = (2, -1)  # ten of a hundred pixels: right and up, as y points down
    plain, weighted, thresholded = mean_flows(field)[0]
    assert plain.tolist() == pytest.approx([2, 1])
    assert weighted.tolist() == thresholded.tolist() == [20, 10]
    assert (mean_flows(np.zeros((1, 4, 4, 2))) == 0).all()


def test_directions_of_the_pairs_are_those_planted() -> None:
    pairs = planted("direction")
    assert pairs.actions is not None
    sectors = statistics.directions(pairs.actions) - 1
    assert (sectors == pairs.codes[:, 0]).all()
    assert math.isfinite(float(pairs.actions.sum()))
