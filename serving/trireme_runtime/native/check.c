/* Tensors that come from another process are indices of tables: one that is out of range would read foreign memory. */
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

static int categories(const Bundle *bundle, const Batch *batch, const int64_t *first, int64_t values) {
    const int32_t *category = batch->user_category;
    for (int64_t row = 0; row < batch->rows; row++)
        for (int64_t column = 0; column < bundle->categories; column++, category++)
            if (*category < 0 || *category >= values - first[column]) return 0;
    return 1;
}

static int segments(const Bundle *bundle, const Batch *batch) {
    const int32_t *category = batch->user_category + bundle->segment_column;
    for (int64_t row = 0; row < batch->rows; row++, category += bundle->categories)
        if (*category < 0 || *category >= bundle->segments) return 0;
    return 1;
}

const char *check(const Bundle *bundle, const Batch *batch, int first, int last) {
    const int tower = first <= USER_TOWER && last > USER_TOWER, searching = first <= RETRIEVAL && last > RETRIEVAL;
    const int ranks = first <= RANKING && last > RANKING, reranks = last > RERANKING;
    if (first == FEATURE_TRANSFORM) return 0; /* everything after it is made here */
    if ((searching || reranks) && !within(batch->user_row, batch->rows, -1, bundle->users)) return "user_row";
    if (!histories(bundle, batch)) return "history_index";
    if ((tower && !categories(bundle, batch, bundle->tower_first, bundle->tower_values)) ||
        (ranks && !categories(bundle, batch, bundle->rank_first, bundle->rank_values)) || (reranks && !segments(bundle, batch)))
        return "user_category";
    if (first > RETRIEVAL && !within(batch->candidate_index, batch->rows * bundle->candidates, -1, bundle->items))
        return "candidate_index";
    return 0;
}
