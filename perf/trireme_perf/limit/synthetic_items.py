"""The items of a made-up catalogue: clusters of skewed sizes in larger groups, their popularity and their vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt

import numpy as np

__all__ = ["Items", "draw_items", "draw_vectors"]

BLOCK = 1 << 16
"""Items drawn at a time: bounds the memory of intermediate arrays."""

CLUSTER_ZIPF = 0.7
"""Exponent of a cluster's size over its rank."""
SERIES = 6
"""Mean number of items that are variants of one thing."""
VARIANCE = (0.18, 0.44, 0.22, 0.16)
"""Share of a vector's variance that its group, its cluster, its series and the item itself decide."""
SPECTRUM = 0.2
"""Exponent by which the standard deviation falls over the dimensions."""
READ_COSINE = 0.89
"""Cosine between the vector that the history reads for an item and the one that is scored."""
NORM = (1.6, 0.25)
"""Median length of the latent part of an item vector, and the standard deviation of its log."""
NORM_BOUND = 2.8
"""Most standard deviations of that: the longest vectors of a large catalogue are no longer than those that were learned."""
POPULARITY_SPREAD = 1.28
"""Standard deviation of log popularity: 1 % of the items get 15 % of the interactions, 10 % get half."""


@dataclass(frozen=True)
class Items:
    """N items on shelves, cluster by cluster; ``item`` int64 [N] is the item index by place on the shelves.

    weight float64 [N], share of the interactions, and series int64 [N] by place; first int64 [clusters + 1], where a cluster's
    shelf begins. group int64 [clusters].
    """

    item: np.ndarray
    weight: np.ndarray
    series: np.ndarray
    first: np.ndarray
    group: np.ndarray

    @property
    def cluster(self) -> np.ndarray:
        """int64 [N] by place."""
        return np.repeat(np.arange(self.group.size), np.diff(self.first))


def draw_items(rng: np.random.Generator, catalogue_size: int, clusters: int) -> Items:
    """Draws ``catalogue_size`` items in ``clusters`` clusters."""
    share = np.arange(1, clusters + 1) ** -CLUSTER_ZIPF
    # Every cluster has an item, whatever is drawn.
    size = 1 + rng.multinomial(catalogue_size - clusters, share / share.sum())
    first = np.concatenate([[0], np.cumsum(size)])
    begins = rng.random(catalogue_size) < 1 / SERIES
    begins[first[:-1]] = True
    weight = np.exp(rng.normal(0.0, POPULARITY_SPREAD, catalogue_size))
    group = rng.integers(max(2, isqrt(clusters)), size=clusters)
    return Items(rng.permutation(catalogue_size), weight / weight.sum(), np.cumsum(begins) - 1, first, group)


def draw_vectors(
    rng: np.random.Generator, shelves: Items, width: int
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yields block by block of places: the scored and the read vectors, float32 [block, width] each.

    A hierarchical mixture of Gaussians: an item lies around its series, that around its cluster, that around its group.
    """
    spectrum = (np.arange(1, width + 1) ** -SPECTRUM).astype(np.float32)
    of_group, of_cluster, of_series, own = np.sqrt(VARIANCE, dtype=np.float32)
    groups = rng.standard_normal((int(shelves.group.max()) + 1, width), dtype=np.float32)
    centres = of_group * groups[shelves.group]
    centres += of_cluster * rng.standard_normal(centres.shape, dtype=np.float32)
    series = of_series * rng.standard_normal((int(shelves.series[-1]) + 1, width), dtype=np.float32)
    cluster = shelves.cluster
    for start in range(0, cluster.size, BLOCK):
        place = slice(start, min(start + BLOCK, cluster.size))
        written = centres[cluster[place]] + series[shelves.series[place]]
        written += own * rng.standard_normal(written.shape, dtype=np.float32)
        noise = rng.standard_normal(written.shape, dtype=np.float32)
        read = READ_COSINE * written + np.float32((1 - READ_COSINE**2) ** 0.5) * noise
        median, deviation = NORM
        for vectors in (written, read):
            vectors *= spectrum
            spread = rng.standard_normal((len(vectors), 1), dtype=np.float32).clip(-NORM_BOUND, NORM_BOUND)
            vectors *= median * np.exp(deviation * spread) / np.linalg.norm(vectors, axis=1, keepdims=True)
        yield place, written, read
