/* retrieval: the best items by inner product, of all by their codes, or of the most promising lists of an inverted file. */
#include "codes.h"

typedef struct {
    float *lower, *upper;
} Bounds;

static void leave_out(void *context, int32_t item) {
    const Bounds *bounds = context;
    bounds->lower[item] = bounds->upper[item] = -INFINITY;
}

/* Candidates of 1 or USERS users, ascending by index, and padding. */
static void search_all(const Funnel *funnel, const Batch *batch, int64_t row, int users) {
    const Bundle *bundle = &funnel->bundle;
    const int64_t dim = bundle->dim, room = ROOM(bundle->items), wanted = bundle->candidates;
    Scaled scaled[USERS];
    for (int user = 0; user < users; user++)
        scaled[user] = quantise(bundle, batch->query + (row + user) * dim, funnel->quantised + user * PADDED(dim));
    bounds(bundle, funnel->quantised, scaled, users, 0, room, INT64_MAX, funnel->lower, funnel->upper, room);
    for (int user = 0; user < users; user++) {
        Bounds of_user = {funnel->lower + user * room, funnel->upper + user * room};
        const int64_t at = row + user;
        for_excluded(funnel, batch, at, leave_out, &of_user);
        int32_t *index = batch->candidate_index + at * wanted;
        float *score = batch->retrieval_score + at * wanted;
        const int64_t found = choose(funnel, batch->query + at * dim, scaled + user, of_user.lower, of_user.upper, bundle->items,
                                     0, index, score);
        pad(bundle, found, 0.0f, index, score);
    }
}

static int usable(const float *query, int64_t values) {
    int finite = 1;
    for (int64_t at = 0; at < values; at++) finite &= isfinite(query[at]) != 0;
    return finite;
}

void retrieval(const Funnel *funnel, const Batch *batch) {
    const Bundle *bundle = &funnel->bundle;
    const int64_t dim = bundle->dim;
    for (int64_t row = 0; row < batch->rows;) {
        const float *query = batch->query + row * dim;
        const int together = !bundle->lists && batch->rows - row >= USERS && usable(query, USERS * dim);
        if (together)
            search_all(funnel, batch, row, USERS);
        else if (!usable(query, dim))
            pad(bundle, 0, NAN, batch->candidate_index + row * bundle->candidates,
                batch->retrieval_score + row * bundle->candidates);
        else if (bundle->lists)
            search_lists(funnel, batch, row);
        else
            search_all(funnel, batch, row, 1);
        row += together ? USERS : 1;
    }
}
