/* Tensors that come from another process, and the tables of users, are indices of other tables: one that is out of range would
 * read foreign memory. */
#include "funnel.h"

static int within(const int32_t *values, int64_t count, int64_t least, int64_t end) {
    int inside = 1;
    for (int64_t at = 0; at < count; at++) inside &= (values[at] >= least) & (values[at] < end);
    return inside;
}

/* Padding on the left, then items. */
static int histories(const Bundle *bundle, const Batch *batch) {
    const int32_t *history = batch->history_index;
    for (int64_t row = 0; row < batch->rows; row++, history += bundle->length) {
        int ordered = 1;
        for (int64_t at = 1; at < bundle->length; at++) ordered &= (history[at - 1] < 0) | (history[at] >= 0);
        if (!ordered) return 0;
    }
    return within(batch->history_index, batch->rows * bundle->length, -1, bundle->items);
}

/* Items, then padding. */
static int candidates(const Bundle *bundle, const Batch *batch) {
    const int32_t *candidate = batch->candidate_index;
    for (int64_t row = 0; row < batch->rows; row++, candidate += bundle->candidates) {
        int ordered = 1;
        for (int64_t at = 1; at < bundle->candidates; at++) ordered &= (candidate[at - 1] >= 0) | (candidate[at] < 0);
        if (!ordered) return 0;
    }
    return within(batch->candidate_index, batch->rows * bundle->candidates, -1, bundle->items);
}

/* What the users have seen. Offsets that fall would be a range of no end. */
static int seen(const Bundle *bundle, const Batch *batch) {
    for (int64_t row = 0; row < batch->rows; row++) {
        const int64_t user = batch->user_row[row] < 0 ? bundle->users : batch->user_row[row];
        const int64_t from = bundle->seen_offsets[user], to = bundle->seen_offsets[user + 1];
        if (from < 0 || to < from || to > bundle->seen_offsets[bundle->users + 1]) return 0;
        if (!within(bundle->seen_items + from, to - from, 0, bundle->items)) return 0;
    }
    return 1;
}

static int categories(const Bundle *bundle, const Batch *batch, const int64_t *first, int64_t values) {
    const int32_t *category = batch->user_category;
    for (int64_t row = 0; row < batch->rows; row++)
        for (int64_t column = 0; column < bundle->categories; column++, category++)
            if (*category < 0 || *category >= values - first[column]) return 0;
    return 1;
}

static int segments(const Bundle *bundle, const Batch *batch) {
    if (bundle->segment_column < 0 || bundle->segment_column >= bundle->categories) return 0;
    const int32_t *category = batch->user_category + bundle->segment_column;
    for (int64_t row = 0; row < batch->rows; row++, category += bundle->categories)
        if (*category < 0 || *category >= bundle->segments) return 0;
    return 1;
}

const char *check(const Bundle *bundle, const Batch *batch, int first, int last) {
    const int tower = first <= USER_TOWER && last > USER_TOWER, searching = first <= RETRIEVAL && last > RETRIEVAL;
    const int ranks = first <= RANKING && last > RANKING, reranks = last > RERANKING;
    if ((searching || reranks) && !within(batch->user_row, batch->rows, -1, bundle->users)) return "user_row";
    if (!histories(bundle, batch)) return "history_index";
    if ((tower && !categories(bundle, batch, bundle->tower_first, bundle->tower_values)) ||
        (ranks && !categories(bundle, batch, bundle->rank_first, bundle->rank_values)) || (reranks && !segments(bundle, batch)))
        return "user_category";
    if (first > RETRIEVAL && !candidates(bundle, batch)) return "candidate_index";
    if ((searching || reranks) && !seen(bundle, batch)) return "seen_items";
    if ((searching || reranks) && !within(batch->excluded_item, batch->excluded, 0, bundle->items)) return "excluded";
    return 0;
}
