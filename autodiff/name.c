/* Interned names. A name is looked up once and known by its number from then on; names that nobody holds and that the
 * last steps did not use are forgotten between steps, so that a program that makes new ones for ever does not grow. */
#include <string.h>

#include "autodiff/context.h"

/* Names from which forgetting is worth a look; the most that a context may have in use; of an age at which a name is
 * forgotten, in tapes opened since. */
enum { MANY_NAMES = 1 << 13, MOST_NAMES = 1 << 20, OLD = 256 };
/* Up to so many names a new key is compared with all others. */
enum { FEW_NAMES = 1 << 12 };

static uint32_t hash_text(const char *s)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *s; s++)
        h = (h ^ (uint8_t)*s) * 0x100000001b3u;
    return (uint32_t)(ad__mix(h) >> 16);
}

static void fill_slots(ad_context *c)
{
    memset(c->name_slots, 0xff, (size_t)c->n_name_slots * sizeof *c->name_slots);
    for (int32_t id = 0; id < c->n_names; id++) {
        if (!c->names[id].text)
            continue;
        int64_t i = c->names[id].hash & (c->n_name_slots - 1);
        while (c->name_slots[i] >= 0)
            i = (i + 1) & (c->n_name_slots - 1);
        c->name_slots[i] = id;
    }
}

static bool grow_slots(ad_context *c)
{
    int64_t n = c->n_name_slots ? c->n_name_slots * 2 : 256;
    int32_t *slots = ad__allocate(c, NULL, (size_t)n * sizeof *slots);
    if (!slots)
        return false;
    ad__allocate(c, c->name_slots, 0);
    c->name_slots = slots;
    c->n_name_slots = n;
    fill_slots(c);
    return true;
}

/* ---- forgetting -------------------------------------------------------------------------------------------------- */

static void forget(ad_context *c, int32_t id)
{
    name_entry *e = &c->names[id];
    c->moved_keys -= e->key != e->hash;
    ad__allocate(c, e->text, 0);
    *e = (name_entry){ .next_free = c->free_name };
    c->free_name = id;
    c->used_names--;
}

/* Forgets what nobody holds and what was last used so many tapes ago. */
static void forget_older(ad_context *c, uint32_t age)
{
    for (int32_t id = 0; id < c->n_names; id++) {
        const name_entry *e = &c->names[id];
        if (e->text && !e->holders && c->tapes - e->used >= age)
            forget(c, id);
    }
    c->names_looked_at = c->used_names < MOST_NAMES / 2 ? 2 * c->used_names : MOST_NAMES;
    memset(c->known_name, 0, sizeof c->known_name);
    fill_slots(c);
}

void ad__names_trim(ad_context *c)
{
    /* near the limit all go but those of a tape that was put aside a moment ago */
    if (c->used_names >= MANY_NAMES && c->used_names >= c->names_looked_at && !c->tape)
        forget_older(c, c->used_names < MOST_NAMES / 2 ? OLD : c->held ? 4 : 0);
}

void ad__name_hold(ad_context *c, int32_t id, int by)
{
    if (id >= 0)
        c->names[id].holders += by;
}

void ad__names_free(ad_context *c)
{
    for (int64_t i = 0; i < c->n_names; i++)
        ad__allocate(c, c->names[i].text, 0);
    ad__allocate(c, c->names, 0);
    ad__allocate(c, c->name_slots, 0);
}

/* ---- finding ----------------------------------------------------------------------------------------------------- */

/* A key no other name of this context has: a colliding one is moved on until it is free. Which of two colliding names
 * moves depends on which came first; with 32 bits and a few thousand sites that is one model in a thousand. */
static uint32_t free_key(const ad_context *c, uint32_t key)
{
    for (int64_t i = 0; i < c->n_names && c->used_names < FEW_NAMES; i++)
        if (c->names[i].text && c->names[i].key == key)
            return free_key(c, (uint32_t)ad__mix(key + 0x9e3779b97f4a7c15u));
    return key;
}

static bool legal(ad_context *c, const char *text)
{
    const char *wrong = !text ? "a name is NULL" : !*text ? "a name is empty" : NULL;
    if (wrong) {
        ad__fail(c, AD_ERROR_ARGUMENT, NULL, "%s", wrong);
        return false;
    }
    for (const char *p = text; *p; p++) {
        if ((unsigned char)*p < ' ' || *p == '\x7f') {
            ad__fail(c, AD_ERROR_ARGUMENT, NULL, "a name holds a control character: \"%s\"", text);
            return false;
        }
    }
    return true;
}

/* An entry that no name uses; -1 after an error. */
static int32_t new_entry(ad_context *c, const char *text)
{
    if (c->used_names >= MOST_NAMES) {
        ad__fail(c, AD_ERROR_LIMIT,
                 "name sites, plates and parameters by their place in the model, not by the step; names are forgotten "
                 "between steps, but not inside one scope around them all",
                 "more than %d names are in use: \"%s\" is one too many", MOST_NAMES, text);
        return -1;
    }
    int32_t id = c->free_name;
    if (id >= 0) {
        c->free_name = c->names[id].next_free;
        return id;
    }
    if (!ad__reserve(c, &c->names, &c->cap_names, c->n_names + 1, sizeof *c->names))
        return -1;
    c->names[c->n_names] = (name_entry){ .text = NULL };
    return (int32_t)c->n_names++;
}

/* The id of a name, -1 where it is not known; taken: another one has its hash. */
static int32_t find(const ad_context *c, const char *text, uint32_t hash, bool *taken)
{
    *taken = false;
    int64_t i = c->n_name_slots ? hash & (c->n_name_slots - 1) : 0;
    for (; c->n_name_slots && c->name_slots[i] >= 0; i = (i + 1) & (c->n_name_slots - 1)) {
        const name_entry *e = &c->names[c->name_slots[i]];
        if (e->hash == hash && !strcmp(e->text, text))
            return c->name_slots[i];
        *taken |= e->hash == hash;
    }
    return -1;
}

int32_t ad__name_known(const ad_context *c, const char *text)
{
    bool taken;
    return text ? find(c, text, hash_text(text), &taken) : -1;
}

static int32_t find_or_add(ad_context *c, const char *text)
{
    if (!legal(c, text))
        return -1;
    bool taken;
    uint32_t hash = hash_text(text);
    int32_t known = find(c, text, hash, &taken);
    if (known >= 0)
        return known;
    ad__names_trim(c);
    if (c->used_names >= MOST_NAMES && !c->tape)
        forget_older(c, 0);
    if (c->used_names * 2 >= c->n_name_slots && !grow_slots(c))
        return -1;
    size_t bytes = strlen(text) + 1;
    char *copy = ad__allocate(c, NULL, bytes);
    int32_t id = copy ? new_entry(c, text) : -1;
    if (id < 0) {
        ad__allocate(c, copy, 0);
        return -1;
    }
    memcpy(copy, text, bytes);
    uint32_t key = taken ? (uint32_t)ad__mix(hash + 0x9e3779b97f4a7c15u) : hash;
    if (taken || c->moved_keys)
        key = free_key(c, key);
    c->names[id] = (name_entry){ .text = copy, .hash = hash, .key = key };
    c->moved_keys += key != hash;
    c->used_names++;
    int64_t i = hash & (c->n_name_slots - 1);
    while (c->name_slots[i] >= 0)
        i = (i + 1) & (c->n_name_slots - 1);
    c->name_slots[i] = id;
    return id;
}

int32_t ad__name(ad_context *c, const char *text)
{
    size_t at = (((uintptr_t)text >> 3 ^ (uintptr_t)text) & 127);
    if (text && c->known_name[at].text == text) { /* another text may lie there by now */
        name_entry *e = &c->names[c->known_name[at].id];
        if (!strcmp(e->text, text)) {
            e->used = c->tapes;
            return c->known_name[at].id;
        }
    }
    int32_t id = find_or_add(c, text);
    if (id < 0)
        return -1;
    c->names[id].used = c->tapes;
    c->known_name[at].text = text;
    c->known_name[at].id = id;
    return id;
}

uint32_t ad__name_hash(ad_context *c, int32_t id)
{
    return id >= 0 && id < c->n_names ? c->names[id].key : 0;
}
