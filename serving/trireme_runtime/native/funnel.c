/* What Python calls: opening a bundle, and running some stages on a batch. */
#define _POSIX_C_SOURCE 199309L
#include "funnel.h"

#include <stdlib.h>
#include <time.h>

#include "codes.h"

/* Raised with every change of what Python calls or hands over, together with VERSION in __init__.py. */
#define VERSION 5
#define PUBLIC __attribute__((visibility("default")))

typedef void Stage(const Funnel *, const Batch *);
static Stage *const STAGES[] = {
    [FEATURE_TRANSFORM] = feature_transform, [USER_TOWER] = user_tower, [RETRIEVAL] = retrieval,
    [RANKING] = ranking,                     [RERANKING] = reranking,
};

PUBLIC int trireme_native_version(void) { return VERSION; }

/* Hands out memory from one block: with `memory` null, only its size is counted. */
typedef struct {
    char *memory;
    size_t used;
} Arena;

static void *take(Arena *arena, int64_t count, size_t size) {
    const size_t at = arena->used;
    arena->used += ((size_t)count * size + LINE - 1) / LINE * LINE;
    return arena->memory ? arena->memory + at : 0;
}

static int64_t most(int64_t one, int64_t other) { return one > other ? one : other; }

static void lay_out(Funnel *funnel, Arena *arena) {
    const Bundle *b = &funnel->bundle;
    const int64_t pooled = PADDED(b->heads * b->latent);
    const int64_t user = b->categories * b->category_width + b->numbers;
    const int64_t width = PADDED(pooled + user + b->rank_width), latent = PADDED(b->latent);
    const int64_t wide = PADDED(b->rank_heads + b->groups + b->rank_history);
    const int64_t layer = most(PADDED(b->rank_hidden), wide);
    const int64_t list = most(b->candidates, b->list_length), searched = b->lists ? b->places : b->items;
#define FLOATS(count) take(arena, (count) + PAD, sizeof(float))
    funnel->gathered = FLOATS(most(b->length * latent, width));
    funnel->weights = FLOATS(b->length);
    funnel->newest = FLOATS(latent);
    funnel->context = FLOATS(PADDED(b->heads * b->key_width));
    funnel->question = FLOATS(most(latent, b->rank_heads * b->rank_width));
    funnel->pooled = FLOATS(b->batch * (pooled + PADDED(b->hidden)));
    funnel->features = FLOATS(b->batch * width);
    funnel->hidden = FLOATS(width);
    funnel->turned = FLOATS(most(b->batch * PADDED(b->dim), latent));
    funnel->lower = FLOATS(b->lists ? searched : USERS * ROOM(searched));
    funnel->upper = FLOATS(b->lists ? searched : USERS * ROOM(searched));
    funnel->sample = FLOATS(searched);
    funnel->found = FLOATS(searched);
    funnel->promise = FLOATS(b->lists);
    funnel->shift = take(arena, b->lists, sizeof(int64_t));
    funnel->spans = take(arena, b->lists + 1, sizeof(Span));
    funnel->quantised = take(arena, USERS * PADDED(b->dim), sizeof(int16_t));
    funnel->kept = take(arena, most(searched, b->list_length) + 1, sizeof(int32_t));
    funnel->candidate = FLOATS(b->candidates * b->rank_width);
    funnel->reading = FLOATS(b->rank_history * b->rank_width);
    funnel->compared = FLOATS(wide * b->rank_width);
    funnel->between = FLOATS(b->candidates * PADDED(4 + b->rank_heads + b->groups));
    funnel->first = FLOATS(b->candidates * layer);
    funnel->gate = FLOATS(b->candidates * PADDED(b->rank_hidden));
    funnel->half = FLOATS(PADDED(b->rank_hidden));
    funnel->vector = FLOATS(PADDED(b->rank_width));
    funnel->keys = take(arena, list, sizeof(uint64_t));
    funnel->marked = take(arena, b->items, 1);
    funnel->offsets = take(arena, b->batch + 1, sizeof(int64_t));
#undef FLOATS
}

/* Returns null where memory is short. The tables stay the caller's, and have to stay there. */
PUBLIC Funnel *trireme_open(const Bundle *bundle) {
    Funnel *funnel = calloc(1, sizeof *funnel);
    if (!funnel) return 0;
    funnel->bundle = *bundle;
    Arena arena = {0, 0};
    lay_out(funnel, &arena);
    funnel->memory = calloc(1, arena.used + LINE);
    if (!funnel->memory) {
        free(funnel);
        return 0;
    }
    arena = (Arena){(char *)(((uintptr_t)funnel->memory + LINE - 1) / LINE * LINE), 0};
    lay_out(funnel, &arena);
    return funnel;
}

PUBLIC void trireme_close(Funnel *funnel) {
    if (funnel) free(funnel->memory);
    free(funnel);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Runs the stages first .. last - 1 and adds the ns that each took to `times`; returns null. If what they read holds a value out of
 * range, its name is returned, and nothing behind feature_transform is run. */
PUBLIC const char *trireme_run(const Funnel *funnel, const Batch *batch, int first, int last, int64_t *times) {
    int64_t at = 0;
    for (int64_t row = 0; row < batch->rows; row++) {
        funnel->offsets[row] = at;
        while (at < batch->excluded && batch->excluded_row[at] == row) at++;
    }
    funnel->offsets[batch->rows] = at;
    int64_t start = now();
    for (int stage = first; stage < last; stage++) {
        if (stage == most(first, USER_TOWER)) {
            const char *wrong = check(&funnel->bundle, batch, first, last);
            if (wrong) return wrong;
        }
        STAGES[stage](funnel, batch);
        const int64_t end = now();
        times[stage - first] += end - start;
        start = end;
    }
    return 0;
}
