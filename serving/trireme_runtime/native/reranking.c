/* reranking: the list by ranking score, popular items where candidates run out, rung and reason; see stages/reranking.py. */
#include <float.h>

#include "funnel.h"
#include "order.h"
#include "vector.h"

enum { FULL, RETRIEVAL_ORDER, SEGMENT_POPULAR, POPULAR };
enum { NONE = 0, FAULT = 3, NOTHING_KNOWN = 4, EXHAUSTED = 5 };

/* Writes the best candidates by `by`, without those that have no score there; returns how many. `index` gets item indices. */
static int64_t order(const Funnel *funnel, const int32_t *candidate, const float *by, int64_t count, int32_t *index,
                     float *score) {
    uint64_t *keys = funnel->keys;
    int64_t scored = 0;
    for (int64_t at = 0; at < count; at++)
        if (by[at] > -FLT_MAX) keys[scored++] = descending_key(by[at], (uint32_t)at);
    sort_keys(keys, scored);
    const int64_t length = funnel->bundle.list_length, taken = scored < length ? scored : length;
    for (int64_t at = 0; at < taken; at++) {
        const uint32_t column = (uint32_t)keys[at];
        index[at] = candidate[column];
        score[at] = by[column];
    }
    return taken;
}

/* Marks, or takes the marks off, what a user must not be shown. */
static void mark(const Funnel *funnel, const Batch *batch, int64_t row, const int32_t *index, int64_t count, uint8_t value) {
    const Bundle *bundle = &funnel->bundle;
    const int64_t user = batch->user_row[row] < 0 ? bundle->users : batch->user_row[row];
    const int32_t *history = batch->history_index + row * bundle->length;
    for (int64_t at = 0; at < count; at++) funnel->marked[index[at]] = value;
    for (int64_t at = bundle->seen_offsets[user]; at < bundle->seen_offsets[user + 1]; at++)
        funnel->marked[bundle->seen_items[at]] = value;
    for (int64_t at = 0; at < bundle->length; at++)
        if (history[at] >= 0) funnel->marked[history[at]] = value;
    for (int64_t at = funnel->offsets[row]; at < funnel->offsets[row + 1]; at++)
        funnel->marked[batch->excluded_item[at]] = value;
}

/* Popular items after the candidates; their scores go on below the last one's. */
static int64_t fill(const Funnel *funnel, const Batch *batch, int64_t row, int64_t count, int32_t *index, float *score) {
    const Bundle *bundle = &funnel->bundle;
    const int64_t segment = batch->user_category[row * bundle->categories + bundle->segment_column];
    const int32_t *popular = bundle->popular + segment * bundle->popular_length;
    const float *popular_score = bundle->popular_score + segment * bundle->popular_length;
    const int64_t before = count;
    const float last = count ? score[count - 1] : INFINITY;
    const float shift = isfinite(last) ? last - popular_score[0] : 0.0f;
    mark(funnel, batch, row, index, before, 1);
    for (int64_t at = 0; at < bundle->popular_length && count < bundle->list_length; at++) {
        if (popular[at] < 0 || funnel->marked[popular[at]]) continue;
        const float value = popular_score[at] + shift;
        index[count] = popular[at];
        score[count++] = value < last ? value : last;
    }
    mark(funnel, batch, row, index, before, 0);
    return count;
}

static int any_nan(const float *values, int64_t count) {
    int found = 0;
    for (int64_t at = 0; at < count; at++) found |= isnan(values[at]) != 0;
    return found;
}

static void rerank(const Funnel *funnel, const Batch *batch, int64_t row) {
    const Bundle *bundle = &funnel->bundle;
    const int64_t candidates = bundle->candidates, length = bundle->list_length;
    const int32_t *candidate = batch->candidate_index + row * candidates;
    const float *by = batch->ranking_score + row * candidates, *retrieval = batch->retrieval_score + row * candidates;
    const int known = batch->history_index[(row + 1) * bundle->length - 1] >= 0;
    int32_t *index = funnel->kept;
    float *score = batch->score + row * length;
    int64_t count = 0;
    /* A user of whom nothing is known gets the popular list, not the model's idea of nobody. */
    while (known && count < candidates && candidate[count] >= 0) count++;
    int finite = 1;
    for (int64_t at = 0; at < count; at++) finite &= isfinite(by[at]) != 0;
    uint8_t rung = finite ? FULL : RETRIEVAL_ORDER, reason = finite ? NONE : FAULT;
    if (count == 0) {
        const int32_t segment = batch->user_category[row * bundle->categories + bundle->segment_column];
        rung = segment > 0 ? SEGMENT_POPULAR : POPULAR;
        reason = !known ? NOTHING_KNOWN : any_nan(retrieval, candidates) ? FAULT : EXHAUSTED;
    }
    int64_t taken = order(funnel, candidate, finite ? by : retrieval, count, index, score);
    if (taken < length && bundle->popular_length) taken = fill(funnel, batch, row, taken, index, score);
    int64_t *item_id = batch->item_id + row * length;
    for (int64_t at = 0; at < taken; at++) item_id[at] = bundle->item_ids[index[at]];
    for (int64_t at = taken; at < length; at++) {
        item_id[at] = -1;
        score[at] = -FLT_MAX;
    }
    batch->rung[row] = rung;
    batch->reason[row] = reason;
}

void reranking(const Funnel *funnel, const Batch *batch) {
    for (int64_t row = 0; row < batch->rows; row++) rerank(funnel, batch, row);
}
