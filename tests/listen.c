/* Preloaded before an example, this listens to its steps: at the program's end the losses of some of them stand in the
 * file that $TAPER_LOSSES names, as hexadecimal numbers, for losses.py. It changes nothing. */
#include "ppl/svi.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static int64_t step;
static double last;

/* Few steps tell as much as all of them: a difference does not go away again. */
static bool is_told(int64_t n)
{
    static const int64_t told[] = { 1, 2, 3, 5, 10, 20, 50, 100, 1000 };
    for (size_t i = 0; i < sizeof told / sizeof *told; i++)
        if (told[i] == n) return true;
    return false;
}

static void tell(int64_t n, double loss)
{
    static FILE *out;
    const char *path = getenv("TAPER_LOSSES");
    if (!out && path && (out = fopen(path, "w")))
        fprintf(out, "%s %s\n", ad_precision_of(ad_context_current()) == AD_DOUBLE ? "double" : "float", ad_describe());
    if (!out) return;
    fprintf(out, "%lld %a\n", (long long)n, loss);
    fflush(out);
}

double svi_step_args(svi *s, int n, const ppl_arg *args)
{
    static double (*next)(svi *, int, const ppl_arg *);
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, "svi_step_args");
    last = next(s, n, args);
    if (is_told(++step)) tell(step, last);
    return last;
}

__attribute__((destructor)) static void end(void)
{
    if (step && !is_told(step)) tell(step, last);
}
