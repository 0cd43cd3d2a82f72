"""The search finds a known optimum, keeps the limit of harm, and takes few iterations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest

from atrous.calibration.tune.candidate import Candidate, Standing
from atrous.calibration.tune.search import ITERATIONS, Found, Search
from atrous.crf import CRFParams

P1 = Candidate(CRFParams.deeplab_v2_resnet())
#: Steps end at factors of 2^¼, so the best is within half of one where parameters do not depend on each other.
WITHIN = 2**0.125 * 1.01

Score = Callable[[Candidate], tuple[float, float]]


def search(score: Score, *, no_harm: float = 0.5, gaussian: bool = False) -> Found:
    """Search with `score`, which tells gain and harm."""

    def stand(_: str, candidates: Sequence[Candidate], most: int | None) -> list[Standing]:
        return [Standing(each, *score(each), most or 75) for each in candidates]

    return Search(stand, P1, no_harm=no_harm, gaussian=gaussian).run()


def hill(**optimum: float) -> Score:
    """Gain that falls with the square of the distance from the optimum in octaves, and no harm."""

    def score(candidate: Candidate) -> tuple[float, float]:
        distances = (math.log2(getattr(candidate.params, name) / value) for name, value in optimum.items())
        return 2 - sum(distance**2 for distance in distances) + 0.001 * min(candidate.iterations, 5), -1.0

    return score


@pytest.mark.parametrize(
    "optimum",
    [
        {"bilateral_weight": 1.5, "bilateral_sigma_xy_px": 33, "bilateral_sigma_rgb": 4.4, "unary_temperature": 1.3},
        {"bilateral_weight": 8, "bilateral_sigma_xy_px": 150, "bilateral_sigma_rgb": 20, "unary_temperature": 0.6},
        {"bilateral_weight": 0.3, "bilateral_sigma_xy_px": 6, "bilateral_sigma_rgb": 1.8, "unary_temperature": 2.5},
    ],
    ids=["inside", "above the grid", "below the grid"],
)
def test_a_known_optimum_is_found(optimum):
    params = search(hill(**optimum)).best.params
    for name, value in optimum.items():
        assert 1 / WITHIN <= getattr(params, name) / value <= WITHIN, name
    assert (params.gaussian_weight, params.gaussian_sigma_xy_px) == (3, 1)


def test_the_smoothness_kernel_is_searched_when_asked():
    optimum = {"bilateral_weight": 2.0, "gaussian_weight": 1.6, "gaussian_sigma_xy_px": 1.9}
    params = search(hill(**optimum), gaussian=True).best.params
    for name, value in optimum.items():
        assert 1 / WITHIN <= getattr(params, name) / value <= WITHIN, name


def test_harm_beyond_the_limit_counts_before_any_gain():
    def score(candidate: Candidate) -> tuple[float, float]:
        weight = candidate.params.bilateral_weight
        return weight, weight - 1.25  # the more the better, but up to 1.75 only

    assert 1.75 / 2**0.25 <= search(score).best.params.bilateral_weight <= 1.75
    assert search(score, no_harm=100).best.params.bilateral_weight > 10


def test_what_the_bundle_has_stays_where_nothing_is_better():
    found = search(lambda each: (1.0 if each.params == P1.params else 0.0, 0.0))
    assert found.best.params == P1.params


def test_no_more_iterations_than_pay():
    def score(candidate: Candidate) -> tuple[float, float]:
        return {1: 0.5, 2: 0.8, 3: 0.985, 5: 0.999}.get(candidate.iterations, 1.0), 0.0

    assert search(score).best.iterations == 3


def test_all_trials_are_told_in_order():
    found = search(hill(bilateral_weight=1.0))
    stages = list(dict.fromkeys(trial.stage for trial in found.trials))
    assert stages == ["grid", "temperature", "finalists", "large steps", "steps", "iterations"]
    assert sum(trial.stage == "grid" for trial in found.trials) == 48
    assert [trial.standing.candidate.iterations for trial in found.trials[-len(ITERATIONS) :]] == list(ITERATIONS)
    assert search(hill(bilateral_weight=1.0)) == found
