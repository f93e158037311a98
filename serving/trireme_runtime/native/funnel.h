/* The funnel for the models of trireme_export/models, on one thread.
 *
 * Python describes the tables of a bundle and the arrays of a batch (native/binding.py has the same structures, in the same
 * order); the functions fill the arrays of one stage after another. Nothing is allocated after the start, nothing is kept
 * between batches, and what is read from a request is checked before it is used as an index.
 *
 * Matrices of layers lie in panels: float[outputs / 16][inputs][16], with zeros beyond the last output (see trireme_export/exporters/native.py).
 */
#ifndef TRIREME_FUNNEL_H
#define TRIREME_FUNNEL_H

#include <stdint.h>

typedef struct {
    /* feature_transform; the last row of each table is the unknown user */
    const int64_t *user_ids; /* ascending */
    const int64_t *item_ids; /* ascending */
    const int32_t *history;  /* [users + 1, length], -1 on the left */
    const int32_t *category; /* [users + 1, categories] */
    const float *number;     /* [users + 1, numbers - 1] */
    const int32_t *context_sizes; /* [contexts], values of each of the last categories, which requests bring */
    int64_t users, items, length, categories, numbers, contexts;

    /* user_tower */
    const float *read;          /* [items + 1, latent], what the tower reads for an item; the last row is zero */
    const float *position;      /* [heads, length] */
    const float *item_score;    /* [heads, latent] */
    const float *context;       /* panels, latent -> heads * key_width */
    const float *key;           /* heads times panels, key_width -> latent */
    const float *tower_category; /* [values, category_width] */
    const int64_t *tower_first; /* [categories], row of the first value of each column */
    const float *tower_norm;    /* [2, features of the tower]: weight, bias */
    const float *mix;           /* panels, features of the tower -> hidden */
    const float *mix_bias;      /* padded */
    const float *query;         /* panels, pooled history and hidden, each padded -> dim */
    const float *query_bias;    /* padded */
    int64_t tower_values, latent, heads, key_width, newest, category_width, hidden, dim;

    /* retrieval */
    const int64_t *seen_offsets; /* [users + 2] */
    const int32_t *seen_items;
    const float *vectors;  /* [items, dim] */
    const int8_t *codes;   /* [items / 8, PADDED(dim) / 2, 8, 2], zeros at the end */
    const float *step;     /* [items, with those that fill up the last eight], what a unit of a code stands for */
    const float *error;    /* the same, length of what the code leaves out */
    const float *centre;   /* [dim], mean vector */
    const float *range;    /* [dim], a dimension of a code is the vector's, less the mean, divided by this */
    const int8_t *mean_codes; /* of an inverted file, as `codes` with lists for items: `places` then stands for `items` above */
    const float *mean_step;   /* as `step` */
    const float *bonus;       /* [lists], see lists.c */
    const int64_t *first;  /* [lists + 1], first place of each list */
    const int32_t *item;   /* [places], -1 where a list is filled up */
    const int32_t *place;  /* [items] */
    int64_t lists, places, candidates; /* no lists: all items are searched, and lie at their own places */
    float margin;
    float longest;      /* of the vectors */
    float longest_code; /* of the vectors that codes stand for */

    /* ranking */
    const float *item_half;     /* [items + 1, rank_hidden] */
    const float *item_vector;   /* [items + 1, rank_width]; the last row is zero */
    const float *recency;       /* [rank_heads, rank_history], weights */
    const float *rank_category; /* [values, category_width] */
    const int64_t *rank_first;
    const float *rank_norm;        /* [2, features of the ranker] */
    const float *user_half;        /* panels, features of the ranker -> rank_hidden */
    const float *user_half_bias;   /* padded */
    const float *user_vector;      /* panels, features of the ranker -> rank_width */
    const float *user_vector_bias; /* padded */
    const float *interaction;      /* panels, 3 + rank_heads + groups + 1 (padded) -> rank_hidden; scales are part of it */
    const float *cross;            /* panels, rank_hidden -> rank_hidden */
    const float *cross_bias;       /* padded; the 1 of the gate is part of it */
    const float *output;           /* padded; the blend is part of it */
    int64_t rank_values, rank_width, rank_hidden, rank_history, rank_heads, groups;

    /* reranking */
    const int32_t *popular;     /* [segments, popular_length] */
    const float *popular_score; /* [segments, popular_length] */
    int64_t segments, popular_length, list_length, segment_column;

    int64_t batch; /* the most rows of a call */
} Bundle;

typedef struct {
    int64_t rows;
    const int64_t *user_id; /* [rows] */
    const int64_t *history; /* [rows, length], or null: the stored one */
    const int32_t *context; /* [rows, contexts], or null: unknown */
    const int64_t *excluded_row; /* [excluded], ascending */
    const int32_t *excluded_item;
    int64_t excluded;
    int32_t *user_row;       /* [rows] */
    int32_t *history_index;  /* [rows, length] */
    int32_t *user_category;  /* [rows, categories] */
    float *user_number;      /* [rows, numbers] */
    float *query;            /* [rows, dim] */
    int32_t *candidate_index; /* [rows, candidates] */
    float *retrieval_score;  /* [rows, candidates] */
    float *ranking_score;    /* [rows, candidates] */
    int64_t *item_id;        /* [rows, list_length] */
    float *score;            /* [rows, list_length] */
    uint8_t *rung;           /* [rows] */
    uint8_t *reason;         /* [rows] */
} Batch;

/* Places of an inverted file that lie side by side: what is kept of them starts at `start`, they start at `first`. */
typedef struct {
    int64_t start, first;
} Span;

/* A bundle with the memory that a batch needs. */
typedef struct Funnel Funnel;

struct Funnel {
    Bundle bundle;
    float *gathered, *weights, *newest, *context, *question, *pooled, *features, *hidden, *turned; /* user_tower */
    float *lower, *upper, *sample, *found, *promise; /* retrieval */
    int16_t *quantised;
    int32_t *kept;
    int64_t *shift;
    Span *spans;
    float *candidate, *reading, *compared, *between, *first, *gate, *half, *vector; /* ranking */
    uint64_t *keys;                                                                 /* reranking */
    uint8_t *marked;
    int64_t *offsets; /* of the pairs excluded, by row */
    void *memory;
};

enum { FEATURE_TRANSFORM, USER_TOWER, RETRIEVAL, RANKING, RERANKING };

/* The name of what the stages first .. last - 1 read that holds a value out of range, or null. Of the stages' own outputs, those of
 * feature_transform are looked at, too, because they are the bundle's: it has to have run. */
const char *check(const Bundle *bundle, const Batch *batch, int first, int last);

void feature_transform(const Funnel *funnel, const Batch *batch);
void user_tower(const Funnel *funnel, const Batch *batch);
void retrieval(const Funnel *funnel, const Batch *batch);
void ranking(const Funnel *funnel, const Batch *batch);
void reranking(const Funnel *funnel, const Batch *batch);

/* out[row] = bias + x[row] W for W in panels; `bias` may be null, strides are in floats, whole panels are written. */
void linear(const float *x, int64_t rows, int64_t stride, int64_t inputs, const float *panels, const float *bias, float *out,
            int64_t out_stride, int64_t outputs);

/* Writes embeddings of the categories and the numbers of a user behind each other; returns how many floats. */
int64_t user_features(const Bundle *bundle, const int32_t *category, const float *number, const float *table,
                      const int64_t *first, float *out);

/* Normalises a row of `width` floats (LayerNorm, epsilon 1e-5) with weight and bias [2, width]. */
void normalise(const float *x, int64_t width, const float *norm, float *out);

#endif
