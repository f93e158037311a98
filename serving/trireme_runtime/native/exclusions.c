/* The parameter `exclude` of a request, "12,15;;7", as items of the catalogue: read, checked and looked up in one pass. */
#include <stdint.h>

#define PUBLIC __attribute__((visibility("default")))
#define MOST_DIGITS 19

/* native/exclusions.py has the same structure. Ids that share the bits above `shift`, counted from the first, are neighbours. */
typedef struct {
    const int64_t *ids;    /* ascending, at least one */
    const int32_t *starts; /* [buckets + 1], of the first id of each bucket */
    int64_t buckets, shift;
} Catalogue;

/* The position of an id, or -1. */
static int32_t find(const Catalogue *catalogue, uint64_t id) {
    const uint64_t bucket = (id - (uint64_t)catalogue->ids[0]) >> catalogue->shift;
    if (bucket >= (uint64_t)catalogue->buckets) return -1;
    int32_t low = catalogue->starts[bucket], high = catalogue->starts[bucket + 1];
    while (high - low > 1) {
        const int32_t middle = low + (high - low) / 2;
        if (catalogue->ids[middle] <= (int64_t)id)
            low = middle;
        else
            high = middle;
    }
    return low < high && catalogue->ids[low] == (int64_t)id ? low : -1;
}

/* Writes the user and the position of each id that is in the catalogue, for which there has to be room, and returns how many; -1
 * if the text is of another form, names more than `users`, or has more than `most` ids for one of them. */
PUBLIC int64_t trireme_exclusions(const Catalogue *catalogue, const char *text, int64_t length, int64_t users, int64_t most,
                                  int64_t *row, int32_t *item) {
    const char *const end = text + length;
    int64_t count = 0, user = 0, ids = 0;
    for (;; text++) {
        if (ids > 0 || (text < end && *text != ';')) {
            const char *const start = text;
            uint64_t id = 0;
            while (text < end && *text >= '0' && *text <= '9' && text - start < MOST_DIGITS)
                id = id * 10 + (uint64_t)(*text++ - '0');
            if (text == start || id > INT64_MAX || ++ids > most) return -1;
            const int32_t position = find(catalogue, id);
            row[count] = user;
            item[count] = position;
            count += position >= 0;
        }
        if (text == end) return count;
        if (*text == ';') {
            ids = 0;
            if (++user == users) return -1;
        } else if (*text != ',')
            return -1;
    }
}
