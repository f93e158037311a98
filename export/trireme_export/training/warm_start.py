"""Item vectors without training: from the items that are taken near each other, and from the users that items share.

The first factorise a table of co-occurrences: pointwise mutual information of items that stand close in a user's sequence,
negative values cut to zero, by a truncated SVD, which word2vec approaches by gradient (Levy and Goldberg, "Neural Word
Embedding as Implicit Matrix Factorization", NIPS 2014; the context distribution is smoothed as in their TACL 2015 paper).
The work grows with the number of positives and not with the square of the catalogue.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from trireme_export.data.histories import Float32
from trireme_export.data.training_data import TrainingData

SMOOTHING = 0.75
"""Exponent of the context distribution (Levy, Goldberg and Dagan, TACL 2015)."""
DAMPING = 0.25
"""Power of the counts by which the table of users and items is divided."""
PAIRS = 1 << 26
"""Pairs of near items that are counted: they and what is made of them need about 100 bytes each."""
BLOCK = 1 << 14
"""Rows of a table that are worked on at a time."""


def co_occurrence(data: TrainingData, past: np.ndarray, window: int) -> sp.csr_matrix:
    """Counts how often two items stand within ``window`` steps of each other, a pair at g steps as 1/g.

    ``past`` bool (P,) selects the positives that count. Many positives get a narrower window: the nearest pairs, which weigh
    most, are kept. Returns a symmetric float64 (N, N).
    """
    window = max(1, min(window, PAIRS // max(1, np.count_nonzero(past))))
    user = data.users[past]
    items = data.user_items[past]
    total = sp.csr_matrix((data.catalogue_size, data.catalogue_size))
    for gap in range(1, window + 1):
        same = user[gap:] == user[:-gap]
        first, second = items[:-gap][same], items[gap:][same]
        other = first != second
        near = (np.full(int(other.sum()), 1.0 / gap), (first[other], second[other]))
        total = total + sp.csr_matrix(near, shape=total.shape)
    return (total + total.T).tocsr()


def positive_pmi(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Returns max(0, log P(i, j) / (P(i) P'(j))) of the non-zero entries; P' is smoothed."""
    rows = np.asarray(counts.sum(axis=1)).ravel()
    context = rows**SMOOTHING
    context *= rows.sum() / max(context.sum(), 1e-12)
    total = counts.data.sum()
    positive = sp.csr_matrix((np.empty_like(counts.data), counts.indices, counts.indptr), shape=counts.shape, copy=True)
    for low in range(0, counts.shape[0], BLOCK):
        high = min(low + BLOCK, counts.shape[0])
        part = slice(counts.indptr[low], counts.indptr[high])
        expected = np.repeat(rows[low:high], np.diff(counts.indptr[low : high + 1])) * context[counts.indices[part]]
        positive.data[part] = np.maximum(np.log(counts.data[part] * total / expected), 0.0)
    positive.sort_indices()
    positive.eliminate_zeros()
    return positive


def warm_item_vectors(
    data: TrainingData, past: np.ndarray, dim: int, window: int, rng: np.random.Generator
) -> tuple[Float32, Float32]:
    """Returns two tables float32 (N, dim) whose products come near the positive PMI; their rows have a mean square length of 1.

    The first is read from the history, the second scored. Items without a neighbour are zero; so are columns beyond the rank.
    """
    positive = positive_pmi(co_occurrence(data, past, window)).astype(np.float32)
    read = np.zeros((data.catalogue_size, dim), dtype=np.float32)
    scored = np.zeros_like(read)
    rank = min(dim, data.catalogue_size - 2)
    if rank < 1 or positive.nnz == 0:
        return read, scored
    left, singular, right = svds(positive, k=rank, v0=rng.standard_normal(data.catalogue_size).astype(np.float32))
    read[:, :rank] = _unit(left * np.sqrt(singular))
    scored[:, :rank] = _unit(right.T * np.sqrt(singular))
    return read, scored


def item_factors(data: TrainingData, past: np.ndarray, dim: int, rng: np.random.Generator) -> tuple[Float32, Float32]:
    """Returns two tables float32 (N, dim) from who took what, at any distance in time; their rows have a mean square length of 1.

    A truncated SVD of the table of users and items (PureSVD, Cremonesi et al., RecSys 2010), whose entries are divided by the
    fourth root of the items of their user and of the users of their item, so that neither heavy users nor popular items fill
    the factors. The first is read from the history, the second scored, and gives the items their popularity back.

    Args:
        past: bool (P,), the positives that count.
        dim: columns; those beyond the rank are zero.
        rng: where the iteration starts.
    """
    taken = data.incidence(past)
    per_user, per_item = (np.maximum(np.asarray(taken.sum(axis=axis)).ravel(), 1) ** DAMPING for axis in (1, 0))
    damped = (sp.diags(1 / per_user) @ taken @ sp.diags(1 / per_item)).astype(np.float32)
    read = np.zeros((data.catalogue_size, dim), dtype=np.float32)
    scored = np.zeros_like(read)
    rank = min(dim, min(damped.shape) - 2)
    if rank < 1 or damped.nnz == 0:
        return read, scored
    _, _, right = svds(damped, k=rank, v0=rng.standard_normal(min(damped.shape)).astype(np.float32))
    read[:, :rank] = _unit(right.T / per_item[:, None])
    scored[:, :rank] = _unit(right.T * per_item[:, None])
    return read, scored


def align(table: Float32, reference: Float32) -> Float32:
    """Turns ``table`` float32 (N, dim) as close as possible to ``reference`` (orthogonal Procrustes, Schönemann 1966).

    A factorisation is unique only up to a rotation; layers trained on one table can then read another.
    """
    left, _, right = np.linalg.svd(table.T @ reference)
    return (table @ (left @ right)).astype(np.float32)


def _unit(table: np.ndarray) -> np.ndarray:
    return table / np.sqrt(max((table**2).sum(axis=1).mean(), 1e-12))
