"""Search from coarse to fine: a grid on a few images, the best of it on all, then steps from there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ...crf import CRFParams
from .candidate import Candidate, Standing

#: The grid. Steps of 2, because scores change slowly; where the best lies on its rim the steps behind it go on.
SIGMAS_XY_PX: Final = (10.0, 20.0, 40.0, 80.0)
SIGMAS_RGB: Final = (3.0, 6.0, 12.0)
WEIGHTS: Final = (0.5, 1.0, 2.0, 4.0)
#: Tried on the best of the grid.
_TEMPERATURES: Final = (0.5, 2.0)
_WITH_TEMPERATURES: Final = 4
_FINALISTS: Final = 5
_GRID_IMAGES: Final = 8
_FINALIST_IMAGES: Final = 32
#: Steps from the best: their factor, how many there may be, and on how many images, None for all.
_STEPS: Final = ((2**0.5, 4, _FINALIST_IMAGES), (2**0.25, 1, None))
ITERATIONS: Final = (1, 2, 3, 5, 7, 10, 15)
#: Fewer iterations are taken where they cost no more points than this.
_ITERATIONS_COST: Final = 0.02
#: Beyond these a lattice has more vertices than anybody has time for, or nothing changes any longer.
_BOUNDS: Final = {
    "bilateral_weight": (0.05, 50.0),
    "bilateral_sigma_xy_px": (2.0, 500.0),
    "bilateral_sigma_rgb": (1.0, 60.0),
    "unary_temperature": (0.2, 10.0),
    "gaussian_weight": (0.05, 50.0),
    "gaussian_sigma_xy_px": (0.5, 20.0),
}
_SEARCHED: Final = ("bilateral_weight", "bilateral_sigma_xy_px", "bilateral_sigma_rgb", "unary_temperature")
_OF_GAUSSIAN: Final = ("gaussian_weight", "gaussian_sigma_xy_px")

#: How candidates stand on the first so many images, None for all; told what it is for.
Stand = Callable[[str, Sequence[Candidate], int | None], list[Standing]]


@dataclass(frozen=True)
class Trial:
    """A candidate that was tried.

    Attributes:
        stage: `grid`, `temperature`, `finalists`, `large steps`, `steps` or `iterations`.
    """

    stage: str
    standing: Standing


@dataclass(frozen=True)
class Found:
    """Result of a search.

    Attributes:
        best: the best on all images.
        trials: all that was tried, in order.
    """

    best: Candidate
    trials: tuple[Trial, ...]


class Search:
    """One search.

    Args:
        stand: scores candidates.
        start: where nothing better is known: what the bundle has.
        no_harm: see `Standing.merit`.
        gaussian: search the smoothness kernel as well.
    """

    def __init__(self, stand: Stand, start: Candidate, *, no_harm: float, gaussian: bool = False) -> None:
        self._stand = stand
        self._start = start
        self._no_harm = no_harm
        self._names = (*_SEARCHED, *(_OF_GAUSSIAN if gaussian else ()))
        self._trials: list[Trial] = []

    def run(self) -> Found:
        """Search; deterministic."""
        coarse = self._try("grid", self._grid(), _GRID_IMAGES)
        best = coarse[:_WITH_TEMPERATURES]
        warmed = [each.scaled(unary_temperature=factor) for each, factor in itertools.product(best, _TEMPERATURES)]
        ranked = self._try("temperature", [*warmed, *best], _GRID_IMAGES)
        finalists = self._try("finalists", [*ranked[:_FINALISTS], self._start], _FINALIST_IMAGES)
        chosen = finalists[0]
        for factor, most, images in _STEPS:
            chosen = self._walk(chosen, factor, most, images)
        return Found(self._fewest_iterations(chosen), tuple(self._trials))

    def _grid(self) -> list[Candidate]:
        params = self._start.params
        return [
            Candidate(
                CRFParams(
                    bilateral_weight=weight,
                    bilateral_sigma_xy_px=sigma_xy_px,
                    bilateral_sigma_rgb=sigma_rgb,
                    gaussian_weight=params.gaussian_weight,
                    gaussian_sigma_xy_px=params.gaussian_sigma_xy_px,
                )
            )
            for sigma_xy_px, sigma_rgb, weight in itertools.product(SIGMAS_XY_PX, SIGMAS_RGB, WEIGHTS)
        ]

    def _walk(self, chosen: Candidate, factor: float, most: int, images: int | None) -> Candidate:
        """Step to the best neighbour until there is no better one."""
        stage = "steps" if images is None else "large steps"
        for _ in range(most):
            neighbours = [each for name in self._names for each in _neighbours(chosen, name, factor)]
            ranked = self._try(stage, [chosen, *neighbours], images)
            better = ranked[: ranked.index(chosen)]
            if not better:
                break
            together = _combined(chosen, better)
            chosen = self._try(stage, [better[0], together], images)[0] if together not in better else better[0]
        return chosen

    def _fewest_iterations(self, chosen: Candidate) -> Candidate:
        tried = [replace(chosen, iterations=count) for count in ITERATIONS]
        self._try("iterations", tried)
        last = {trial.standing.candidate: trial.standing for trial in self._trials if trial.stage == "iterations"}
        merits = {each: last[each].merit(self._no_harm) for each in tried}
        harm, gain = max(merits.values())
        return next(each for each in tried if merits[each][0] >= harm and merits[each][1] >= gain - _ITERATIONS_COST)

    def _try(self, stage: str, candidates: Iterable[Candidate], images: int | None = None) -> list[Candidate]:
        """Candidates, the best first; of equal ones the first."""
        tried = list(dict.fromkeys(candidates))
        standings = self._stand(stage, tried, images)
        self._trials += [Trial(stage, each) for each in standings]
        order = sorted(range(len(tried)), key=lambda index: standings[index].merit(self._no_harm), reverse=True)
        return [tried[index] for index in order]


def _neighbours(candidate: Candidate, name: str, factor: float) -> list[Candidate]:
    low, high = _BOUNDS[name]
    both = (candidate.scaled(**{name: step}) for step in (1 / factor, factor))
    return [each for each in both if low <= getattr(each.params, name) <= high]


def _combined(chosen: Candidate, better: Sequence[Candidate]) -> Candidate:
    """The best step of each parameter that gained by one, all at once."""
    values: dict[str, float] = {}
    for each in better:
        for name in _BOUNDS:
            value = getattr(each.params, name)
            if value != getattr(chosen.params, name):
                values.setdefault(name, value)
    return replace(chosen, params=replace(chosen.params, **values))
