/* Search in an inverted file: exact, by codes, among the items of the lists that promise most.
 *
 * Lists lie one behind the other, each filled up to whole groups of items, and vectors, codes and items lie at the same places. A
 * list promises the product of the query with its mean, which is a code, too, and what its best item had above that for other
 * users, as a share of their length. A query looks into the lists whose promise is not further than a margin, a share of its
 * length, below the `LEADER`-th best. */
#include "codes.h"
#include "order.h"

/* Whose promise the margin is counted from: the very best ones say less, as lists of single outstanding items. */
#define LEADER 16
/* For a user who ran short: how many times as many lists every further search looks into. */
#define WIDENING 4

static void promises(const Bundle *bundle, const int16_t *quantised, const Scaled *scaled, float length, float *out) {
    estimates(bundle, bundle->mean_codes, bundle->mean_step, quantised, scaled, bundle->lists, out);
    for (int64_t list = 0; list < bundle->lists; list++) {
        const float promise = out[list] + length * bundle->bonus[list];
        out[list] = isnan(promise) ? INFINITY : promise; /* no number has no order: such a list is looked into */
    }
}

static float nth_promise(const Funnel *funnel, int64_t n) {
    const int64_t lists = funnel->bundle.lists;
    return bound_of_best(funnel->promise, lists, n < lists ? n : lists, funnel->sample, funnel->found);
}

/* Where the bounds of the lists that are looked into lie: at a place less its list's `shift`, or nowhere, if that is negative. */
typedef struct {
    const Funnel *funnel;
    int64_t lists, count;
} Probed;

static void leave_out(void *context, int32_t item) {
    const Probed *probed = context;
    const Funnel *funnel = probed->funnel;
    const int64_t place = funnel->bundle.place[item];
    int64_t low = 0, high = funnel->bundle.lists;
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (funnel->bundle.first[middle] <= place)
            low = middle;
        else
            high = middle;
    }
    if (funnel->shift[low] < 0) return;
    const int64_t at = place - funnel->shift[low];
    funnel->lower[at] = funnel->upper[at] = -INFINITY;
}

/* The next list that promises at least so much; all, where that is no number. */
static int64_t promising(const Funnel *funnel, int64_t list, float least) {
    while (list < funnel->bundle.lists && funnel->promise[list] < least) funnel->shift[list++] = -1;
    return list;
}

/* Bounds of all items of the lists that promise at least so much, behind each other. */
static Probed probe(const Funnel *funnel, const Scaled *scaled, float least) {
    const Bundle *bundle = &funnel->bundle;
    Probed probed = {funnel, 0, 0};
    for (int64_t list = promising(funnel, 0, least), next; list < bundle->lists; list = next) {
        next = promising(funnel, list + 1, least);
        const int64_t first = bundle->first[list], last = bundle->first[list + 1];
        float *lower = funnel->lower + probed.count, *upper = funnel->upper + probed.count;
        bounds(bundle, funnel->quantised, scaled, 1, first, last, bundle->first[next], lower, upper, 0);
        for (int64_t place = last - 1; place >= first && bundle->item[place] < 0; place--)
            lower[place - first] = upper[place - first] = -INFINITY;
        funnel->shift[list] = first - probed.count;
        funnel->spans[probed.lists++] = (Span){probed.count, first};
        probed.count += last - first;
    }
    funnel->spans[probed.lists].start = probed.count;
    return probed;
}

void search_lists(const Funnel *funnel, const Batch *batch, int64_t row) {
    const Bundle *bundle = &funnel->bundle;
    const float *query = batch->query + row * bundle->dim;
    int32_t *index = batch->candidate_index + row * bundle->candidates;
    float *score = batch->retrieval_score + row * bundle->candidates;
    const Scaled scaled = quantise(bundle, query, funnel->quantised);
    float square = 0.0f;
    for (int64_t at = 0; at < bundle->dim; at++) square += query[at] * query[at];
    const float length = sqrtf(square);
    promises(bundle, funnel->quantised, &scaled, length, funnel->promise);
    /* A query without codes is looked for in all lists. */
    float least = isfinite(scaled.reach) ? nth_promise(funnel, LEADER) - bundle->margin * length : -INFINITY;
    int64_t found;
    for (;;) {
        Probed probed = probe(funnel, &scaled, least);
        for_excluded(funnel, batch, row, leave_out, &probed);
        found = choose(funnel, query, &scaled, funnel->lower, funnel->upper, probed.count, funnel->spans, index, score);
        if (found == bundle->candidates || probed.lists == bundle->lists) break;
        least = probed.lists * WIDENING < bundle->lists ? nth_promise(funnel, probed.lists * WIDENING) : -INFINITY;
    }
    for (int64_t at = 0; at < found; at++) index[at] = bundle->item[index[at]];
    pad(bundle, found, 0.0f, index, score);
}
