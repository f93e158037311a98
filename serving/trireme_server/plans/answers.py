"""How far the answers of a graph model are from the expected ones, as arrays; knows nothing of a server.

A floating-point output is compared by the root mean square of the differences, in standard deviations of what is expected. An
output of indices is compared as sets of candidates, and the scores beside it item by item over the candidates in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Answers", "Tolerance"]

CANDIDATES = "candidate_index"
CUT_OFF_SCORE = "retrieval_score"
#: One user may be further off than all of them together, as rounding does not hit everybody alike; but not by more than this.
LONE_FACTOR = 10.0
#: An answer is that of another request if it is so much closer to what that one should get.
STALE_FACTOR = 10.0


@dataclass(frozen=True)
class Tolerance:
    """The largest difference of scores, in standard deviations, and the least share of the expected candidates."""

    score_difference: float
    index_recall: float


@dataclass(frozen=True)
class Answers:
    """What a model is expected to answer to its samples.

    Attributes:
        expected: each output, (samples, …).
        given: the candidates that are an input of the model, (samples, C), −1 = padding; None if they are none.
        tolerance: what is allowed.
    """

    expected: Mapping[str, np.ndarray]
    given: np.ndarray | None
    tolerance: Tolerance

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(next(iter(self.expected.values())))

    def problem(self, chosen: np.ndarray, found: Mapping[str, np.ndarray]) -> str | None:
        """Returns what is wrong with answers, in words that name the output, what was found and what is allowed.

        Args:
            chosen: the sample that each row answers, (rows,).
            found: each output, (rows, …).
        """
        for name in sorted(
            self.expected, key=lambda name: name != CANDIDATES
        ):  # scores count only beside the right ones
            rows = self._losses(name, found, chosen)
            if not np.isfinite(rows).all():
                return f"output {name} holds values that are no numbers; allowed: finite ones"
            whole, allowed = self._mean(name, rows), self._allowed(name)
            if stale := self._stale(name, found, chosen, rows):
                return stale
            if whole > allowed:
                return f"output {name} {self._words(name, whole, allowed)}"
            worst = int(np.argmax(rows))
            if rows[worst] > LONE_FACTOR * allowed:
                said = self._words(name, rows[worst], LONE_FACTOR * allowed)
                return f"output {name} for sample {chosen[worst]} alone {said}"
        return None

    def _losses(self, name: str, found: Mapping[str, np.ndarray], chosen: np.ndarray) -> np.ndarray:
        """Returns how far each row is from the expectation for its sample in ``chosen``; 0 is no difference."""
        if name == CANDIDATES:
            return np.array([self._index_loss(found, row, sample) for row, sample in enumerate(chosen)])
        if CANDIDATES in self.expected:
            pairs = [self._common(name, found, row, sample) for row, sample in enumerate(chosen)]
            squares = [np.mean((here - there) ** 2) if here.size else 0.0 for here, there in pairs]
            return np.sqrt(squares) / self._spread(name)
        counted = self._counted(name)[chosen]
        differences = np.where(counted, found[name].astype(np.float64) - self.expected[name][chosen], 0.0)
        axes = tuple(range(1, differences.ndim))
        squares = (differences**2).sum(axis=axes) / np.maximum(counted.sum(axis=axes), 1)
        return np.asarray(np.sqrt(squares) / self._spread(name))

    def _mean(self, name: str, rows: np.ndarray) -> float:
        return float(rows.mean() if name == CANDIDATES else np.sqrt((rows**2).mean()))

    def _allowed(self, name: str) -> float:
        return 1.0 - self.tolerance.index_recall if name == CANDIDATES else self.tolerance.score_difference

    def _words(self, name: str, loss: float, allowed: float) -> str:
        if name == CANDIDATES:
            return f"holds {1 - loss:.4f} of the expected candidates; allowed: at least {max(0.0, 1 - allowed):.4f}"
        return f"differs by {loss:.4f} standard deviations of what is expected; allowed: {allowed:.4f}"

    def _stale(self, name: str, found: Mapping[str, np.ndarray], chosen: np.ndarray, rows: np.ndarray) -> str | None:
        """Looks among the rows that are too far off for one that another sample's answer fits.

        Scores of other candidates cannot be compared; where there are candidates, they tell.
        """
        if name != CANDIDATES and CANDIDATES in self.expected:
            return None
        for row in np.flatnonzero(rows > self._allowed(name)):
            alone = {output: values[row : row + 1] for output, values in found.items()}
            others = [self._losses(name, alone, np.array([sample]))[0] for sample in range(self.samples)]
            nearest = int(np.argmin(others))
            if others[nearest] <= rows[row] / STALE_FACTOR:
                return (
                    f"output {name} for sample {chosen[row]} is that of another request, for sample {nearest}; "
                    f"it {self._words(name, rows[row], self._allowed(name))}"
                )
        return None

    def _index_loss(self, found: Mapping[str, np.ndarray], row: int, sample: int) -> float:
        """Returns the share of a sample's candidates that is missing.

        Where scores at the cut-off are equal, any of these candidates is as good as another.
        """
        expected, indices = self.expected[CANDIDATES][sample], found[CANDIDATES][row]
        wanted, there = expected[expected >= 0], indices[indices >= 0]
        if not wanted.size:
            return float(there.size > 0)
        missing, extra = ~np.isin(expected, there) & (expected >= 0), ~np.isin(indices, wanted) & (indices >= 0)
        tied = 0
        if CUT_OFF_SCORE in self.expected:
            tied = min(
                _at_cut_off(self.expected[CUT_OFF_SCORE][sample], expected >= 0, missing),
                _at_cut_off(found[CUT_OFF_SCORE][row], indices >= 0, extra),
            )
        return float(missing.sum() - tied) / wanted.size

    def _common(
        self, name: str, found: Mapping[str, np.ndarray], row: int, sample: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the found and the expected scores of the candidates that are in both lists."""
        here, there = found[CANDIDATES][row], self.expected[CANDIDATES][sample]
        common, at, expected_at = np.intersect1d(here, there, return_indices=True)
        at, expected_at = at[common >= 0], expected_at[common >= 0]
        return found[name][row][at].astype(np.float64), self.expected[name][sample][expected_at].astype(np.float64)

    def _counted(self, name: str) -> np.ndarray:
        """Returns which expected values count: scores beside candidates are undefined at padding."""
        candidates = self.expected.get(CANDIDATES, self.given)
        values = self.expected[name]
        if candidates is None or candidates.shape != values.shape:
            return np.ones(values.shape, bool)
        return np.asarray(candidates >= 0)

    def _spread(self, name: str) -> float:
        """Returns the standard deviation of what is expected; where all is equal, 1."""
        values = self.expected[name][self._counted(name)].astype(np.float64)
        return float(values.std()) or 1.0 if values.size else 1.0


def _at_cut_off(scores: np.ndarray, valid: np.ndarray, candidates: np.ndarray) -> int:
    """Returns how many of ``candidates`` have the least score of the valid ones."""
    if not candidates.any():
        return 0
    return int((scores[candidates] == scores[valid].min()).sum())
