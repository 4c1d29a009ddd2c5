/* Names for messages: what there is, and which of it was probably meant. Called where a name was not found. */
#include <stdio.h>
#include <string.h>

#include "ppl/state.h"

enum { FAR = 3, LONGEST = 63 };

/* How many letters differ (Levenshtein's distance), at most FAR. */
static int distance(const char *a, const char *b)
{
    size_t m = strlen(a), n = strlen(b);
    if (m > LONGEST || n > LONGEST)
        return FAR;
    int row[LONGEST + 1];
    for (size_t j = 0; j <= n; j++)
        row[j] = (int)j;
    for (size_t i = 1; i <= m; i++) {
        int corner = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= n; j++) {
            int best = corner + (a[i - 1] != b[j - 1]);
            corner = row[j];
            best = row[j] + 1 < best ? row[j] + 1 : best;
            row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
        }
    }
    return row[n] < FAR ? row[n] : FAR;
}

/* As near as names of its length go: half of it may differ. */
static bool is_near(const char *wanted, const char *name, int letters)
{
    return letters < FAR && 2 * (size_t)letters <= strlen(wanted) + 1 && 2 * (size_t)letters <= strlen(name) + 1;
}

void ppl__known_add(known *k, const char *name)
{
    int letters = k->wanted ? distance(k->wanted, name) : FAR;
    const char *behind = k->wanted ? strstr(name, k->wanted) : NULL;
    if (behind && *k->wanted && behind[strlen(k->wanted)] == '\0')
        letters = 0; /* a module or a scope stands before it */
    if (letters < k->letters && (!letters || is_near(k->wanted, name, letters))) {
        k->nearest = name;
        k->letters = letters;
    }
    if (k->used < sizeof k->names)
        k->used += (size_t)snprintf(k->names + k->used, sizeof k->names - k->used, "%s\"%s\"", k->n ? ", " : "", name);
    if (k->used >= sizeof k->names)
        memcpy(k->names + sizeof k->names - 4, "...", 4);
    k->n++;
}

const char *ppl__known_text(known *k, const char *more)
{
    char nearest[LONGEST + 24] = "";
    if (k->nearest)
        snprintf(nearest, sizeof nearest, "did you mean \"%.*s\"? ", LONGEST, k->nearest);
    snprintf(k->text, sizeof k->text, "%sthere %s%s%s%s", nearest, k->n == 1 ? "is " : "are ",
             k->n ? k->names : "none yet", more ? "; " : "", more ? more : "");
    return k->text;
}

const char *ppl__known_params(ad_context *c, known *k, const char *more)
{
    const ppl_state *st = ppl__state(c);
    for (int64_t i = 0; i < st->n_params; i++)
        if (st->params[i].leaf)
            ppl__known_add(k, ad__name_text(c, st->params[i].name));
    return ppl__known_text(k, more);
}
