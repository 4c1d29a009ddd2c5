/* Trains a variational autoencoder on MNIST and paints what it has learnt. Run by the launcher of the same name, which
 * builds it; --help tells the options. Ctrl-C ends the training, but not before the pictures; a second one ends all.
 * Exit status: 0, 64 for a wrong command line, 2 for a device that cannot be had, 130 when interrupted, 1 for any other
 * failure. */
#include "models/loader.h"
#include "models/mnist.h"
#include "models/picture.h"
#include "models/vae.h"

#include <argp.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- options: one row each --------------------------------------------------------------------------------------- */

/* X(field, type, option, argument, standard, its text, least, greatest, help) */
#define NUMBERS(X)                                                                                                     \
    X(epochs, int64_t, "epochs", "N", 20, "20", 1, 1000000, "epochs to train")                                         \
    X(batch_size, int64_t, "batch-size", "N", 256, "256", 1, 60000, "images in a minibatch")                           \
    X(lr, double, "lr", "X", 1e-3, "0.001", 1e-12, 1e3, "Adam's step size")                                            \
    X(z_dim, int64_t, "z-dim", "N", 50, "50", 1, 100000, "latent numbers of an image")                                 \
    X(hidden, int64_t, "hidden", "N", 400, "400", 1, 100000, "hidden units of encoder and decoder")                    \
    X(seed, int64_t, "seed", "N", 0, "0", 0, INT64_MAX, "seed of all draws")                                           \
    X(threads, int64_t, "threads", "N", 0, "0, all cores", 0, 1024, "threads to compute with")

/* X(field, key, option, argument, help) */
#define TEXTS(X)                                                                                                       \
    X(data, 'd', "data", "DIR",                                                                                        \
      "folder of MNIST's four files (default: $TAPER_DATA, the cache, a download, or else drawn digits)")              \
    X(device, 'D', "device", "NAME",                                                                                   \
      "where to compute: cpu, cuda, cuda:1, or auto: CUDA where it can be had (default: $TAPER_DEVICE, else cpu)")    \
    X(out, 'o', "out", "DIR", "folder for the pictures (default: vae_mnist.out)")                                      \
    X(log, 'l', "log", "FILE", "write one JSON object per epoch to FILE (default: none)")

typedef struct options {
#define X(field, type, ...) type field;
    NUMBERS(X)
#undef X
#define X(field, ...) const char *field;
    TEXTS(X)
#undef X
    bool quiet;
} options;

enum {
    KEY_BEFORE_NUMBERS = 0x100,
#define X(field, ...) KEY_##field,
    NUMBERS(X)
#undef X
};

static const struct argp_option rows[] = {
#define X(field, key, option, argument, help) { option, key, argument, 0, help, 1 },
    TEXTS(X)
#undef X
#define X(field, type, option, argument, standard, text, least, greatest, help)                                        \
    { option, KEY_##field, argument, 0, help " (default: " text ")", 2 },
    NUMBERS(X)
#undef X
    { "quiet", 'q', NULL, 0, "no line per epoch and no progress", 3 },
    { NULL, 0, NULL, 0, NULL, 0 }
};

/* The number in text, or a message and exit 64. */
static double number(struct argp_state *state, const char *option, const char *text, double least, double greatest,
                     bool whole)
{
    char *end;
    errno = 0;
    double x = strtod(text, &end);
    if (end == text || *end || errno || !(x >= least && x <= greatest) || (whole && x != floor(x)))
        argp_error(state, "--%s takes a%s number from %g to %g, found '%s'", option, whole ? " whole" : "", least,
                   greatest, text);
    return x;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    options *o = state->input;
    switch (key) {
#define X(field, key, ...) case key: o->field = text; return 0;
        TEXTS(X)
#undef X
#define X(field, type, option, argument, standard, shown, least, greatest, help)                                       \
    case KEY_##field:                                                                                                  \
        o->field = (type)number(state, option, text, (double)(least), (double)(greatest), (type)0.5 == 0);             \
        return 0;
        NUMBERS(X)
#undef X
    case 'q': o->quiet = true; return 0;
    case ARGP_KEY_ARG: argp_error(state, "unexpected '%s'", text); return EINVAL;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp command = {
    .options = rows,
    .parser = parse,
    .doc =
        "Trains a variational autoencoder on MNIST, tells its losses (-ELBO in nats per image) after every epoch, and "
        "writes pictures.",
};

enum { DEVICE_FAILURE = 2, INTERRUPTED = 128 + SIGINT }; /* exit status */

/* ---- failing, told once ------------------------------------------------------------------------------------------ */

static int failed(const char *what, const char *why, const char *advice)
{
    fprintf(stderr, "vae_mnist: %s: %s\n", what, why);
    if (advice) fprintf(stderr, "  %s\n", advice);
    return EXIT_FAILURE;
}

/* The same about an option's value, which may be empty. */
static int refused(const char *option, const char *value, int error, const char *advice)
{
    fprintf(stderr, "vae_mnist: %s '%s': %s\n  %s\n", option, value, strerror(error), advice);
    return EXIT_FAILURE;
}

static const char *why_not(svi *s) { return s && *svi_error(s) ? svi_error(s) : ad_error(); }

/* What helps against the error that stands, or NULL. */
static const char *advice(void)
{
    switch (ad_error_code()) {
    case AD_ERROR_NONFINITE: return "try a smaller --lr";
    case AD_ERROR_MEMORY: return "try a smaller --hidden, --z-dim or --batch-size";
    default: return NULL;
    }
}

static const char no_room[] = "make room, or choose another --log";

/* ---- interruption ------------------------------------------------------------------------------------------------ */

static volatile sig_atomic_t interrupted;

static void interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

/* From here on the first Ctrl-C only sets the flag, and the second kills; where it is ignored, it stays so. */
static void heed_interrupts(void)
{
    struct sigaction old, heed = { .sa_handler = interrupt, .sa_flags = (int)(SA_RESETHAND | SA_RESTART) };
    sigemptyset(&heed.sa_mask);
    if (!sigaction(SIGINT, NULL, &old) && old.sa_handler != SIG_IGN) sigaction(SIGINT, &heed, NULL);
}

/* ---- training ---------------------------------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* One pass over l: the loss per image, NAN after an error; without a meaning when it was interrupted. */
static double pass(svi *s, vae *v, loader *l, bool train, bool progress, int64_t epoch)
{
    double loss = 0, shown = now();
    int64_t batch = 0, batches = loader_batches(l);
    ad_tensor *x;
    while (!interrupted && loader_next(l, &x)) {
        loss += train ? svi_step(s, v, x) : svi_evaluate(s, v, x);
        if (isnan(loss)) return NAN;
        batch++;
        if (progress && now() - shown > 0.1) {
            shown = now();
            printf("\repoch %lld  %s %3lld%%\033[K", (long long)epoch, train ? "training" : "testing",
                   (long long)(100 * batch / batches));
            fflush(stdout);
        }
    }
    return loss / (double)loader_count(l);
}

/* All epochs, or as many as were not interrupted; 0, or the exit status after saying what failed. */
static int fit(const options *o, svi *s, vae *v, loader *train, loader *test, FILE *log)
{
    bool progress = !o->quiet && isatty(STDOUT_FILENO);
    for (int64_t epoch = 0; epoch < o->epochs; epoch++) {
        double start = now(), train_loss = pass(s, v, train, true, progress, epoch), seconds = now() - start;
        double test_loss = isnan(train_loss) ? NAN : pass(s, v, test, false, progress, epoch);
        if (progress) printf("\r\033[K");
        fflush(stdout);
        if (isnan(test_loss))
            return failed(isnan(train_loss) ? "training stopped" : "the test loss could not be computed", why_not(s),
                          advice());
        if (interrupted) {
            fprintf(stderr, "vae_mnist: interrupted in epoch %lld; the pictures show what has been learnt\n",
                    (long long)epoch);
            return 0;
        }
        if (!o->quiet)
            printf("epoch %lld  train %.3f  test %.3f  (%.1f s)\n", (long long)epoch, train_loss, test_loss, seconds);
        fflush(stdout);
        if (log) {
            fprintf(log, "{\"epoch\":%lld,\"train_loss\":%.6f,\"test_loss\":%.6f,\"train_seconds\":%.6f}\n",
                    (long long)epoch, train_loss, test_loss, seconds);
            if (fflush(log)) return refused("--log", o->log, errno, no_room);
        }
    }
    return 0;
}

/* ---- pictures ---------------------------------------------------------------------------------------------------- */

enum { DRAWS = 15, PAIRS = 16, PRIOR = 64, MOST = PRIOR };
typedef struct gallery {
    const char *folder;
    vae *v;
    const mnist_set *test;
    float pixels[MOST * MNIST_PIXELS], more[MOST * MNIST_PIXELS];
} gallery;

static int paint(const gallery *g, const char *name, const float *pixels, int count, int columns)
{
    char path[4096], why[512];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", g->folder, name) >= sizeof path)
        return failed(g->folder, "the name is too long", "choose another --out");
    if (picture_grid(path, pixels, count, MNIST_SIDE, MNIST_SIDE, &(picture_options){ .columns = columns, .zoom = 2 },
                     why, sizeof why))
        return failed("no picture", why, "make room, or choose another --out"); /* why opens with the path */
    printf("wrote %s\n", path);
    return 0;
}

/* The i-th test image, as reals. */
static void copy_image(const gallery *g, int64_t i, float *to)
{
    for (int p = 0; p < MNIST_PIXELS; p++) to[p] = (float)g->test->images[i * MNIST_PIXELS + p] / 255.0f;
}

/* Runs the encoder on n images, draws z for each, decodes: the pixel means into `means`, and, unless it is NULL, images
 * drawn from them into `drawn`. */
static bool reconstruct(gallery *g, const float *images, int n, float *means, float *drawn)
{
    ad_tensor *x = ad_from(images, AD_SHAPE(n, MNIST_PIXELS));
    bool done = false;
    ad_scope {
        ppl_trace *t = ppl_trace_run(vae_guide, PPL_ARGS(vae *, ad_tensor *), g->v, x);
        ad_tensor *mean = vae_decode(g->v, ppl_trace_value(t, "latent"));
        ad_tensor *image = dist_sample(dist_bernoulli(mean), 0);
        done = ad_read(mean, means, (int64_t)n * MNIST_PIXELS) &&
               (!drawn || ad_read(image, drawn, (int64_t)n * MNIST_PIXELS));
    }
    ad_free(x);
    return done;
}

static bool imagine(gallery *g, int n, float *means)
{
    bool done = false;
    ad_scope {
        distribution *prior = dist_normal(ad_zeros(n, g->v->z_dim), 1.0);
        done = ad_read(vae_decode(g->v, dist_sample(prior, 0)), means, (int64_t)n * MNIST_PIXELS);
    }
    return done;
}

/* The pictures; 0, or the exit status after saying what failed. */
static int paint_all(gallery *g)
{
    static float copies[DRAWS * MNIST_PIXELS];
    int pairs = g->test->count < PAIRS ? (int)g->test->count : PAIRS;
    copy_image(g, 0, copies);
    for (int i = 1; i < DRAWS; i++) memcpy(copies + i * MNIST_PIXELS, copies, MNIST_PIXELS * sizeof *copies);
    if (!reconstruct(g, copies, DRAWS, g->pixels, g->more)) return failed("no pictures", ad_error(), advice());
    if (paint(g, "input.png", copies, 1, 1) || paint(g, "posterior_means.png", g->pixels, DRAWS, 5) ||
        paint(g, "posterior_draws.png", g->more, DRAWS, 5))
        return EXIT_FAILURE;

    for (int i = 0; i < pairs; i++) copy_image(g, i, g->more + i * MNIST_PIXELS);
    if (!reconstruct(g, g->more, pairs, g->pixels, NULL)) return failed("no pictures", ad_error(), advice());
    for (int i = pairs - 1; i >= 0; i--) { /* original, reconstruction, original, ... */
        memmove(g->pixels + (2 * i + 1) * MNIST_PIXELS, g->pixels + i * MNIST_PIXELS, MNIST_PIXELS * sizeof *g->pixels);
        memcpy(g->pixels + 2 * i * MNIST_PIXELS, g->more + i * MNIST_PIXELS, MNIST_PIXELS * sizeof *g->pixels);
    }
    if (paint(g, "reconstructions.png", g->pixels, 2 * pairs, 8)) return EXIT_FAILURE;

    if (!imagine(g, PRIOR, g->pixels)) return failed("no pictures", ad_error(), advice());
    return paint(g, "prior.png", g->pixels, PRIOR, 8);
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

/* Makes the folder where it is missing; 0, or why no files can be written there, as errno tells. */
static int open_folder(const char *path)
{
    struct stat found;
    if (!mkdir(path, 0777)) return 0;
    if (errno != EEXIST || stat(path, &found)) return errno;
    if (!S_ISDIR(found.st_mode)) return ENOTDIR;
    return access(path, W_OK | X_OK) ? errno : 0;
}

/* Trains on data, then paints; 0, or the exit status after saying what failed. */
static int learn(const options *o, const mnist *data, FILE *log)
{
    int status = EXIT_FAILURE;
    static gallery pictures;
    vae v = { .pixels = MNIST_PIXELS, .hidden = o->hidden, .z_dim = o->z_dim };
    ppl_seed((uint64_t)o->seed);
    if (o->threads) ad_set_threads((int)o->threads);
    if (!o->quiet) printf("%s\n", ad_describe());
    loader_options shuffled = { .batch_size = o->batch_size, .seed = (uint64_t)o->seed };
    loader_options in_order = { .batch_size = o->batch_size, .in_order = true };
    loader *train = loader_new(data->train.images, data->train.count, MNIST_PIXELS, &shuffled);
    loader *test = loader_new(data->test.images, data->test.count, MNIST_PIXELS, &in_order);
    svi *s = svi_new(vae_model, vae_guide, .args = PPL_ARGS(vae *, ad_tensor *), .optim = optim_adam(.lr = o->lr));
    heed_interrupts();
    if (train && test && s) status = fit(o, s, &v, train, test, log);
    else failed("cannot start", ad_error(), advice());
    if (!status) {
        pictures.folder = o->out;
        pictures.v = &v;
        pictures.test = &data->test;
        status = paint_all(&pictures);
    }
    if (!status && interrupted) status = INTERRUPTED;
    svi_free(s);
    loader_free(test);
    loader_free(train);
    return status;
}

/* All but the device; what can be refused at once is, before the data are loaded. */
static int run(const options *o)
{
    int status = open_folder(o->out);
    if (status) return refused("--out", o->out, status, "give a folder that can be written, or made: --out DIR");
    FILE *log = o->log ? fopen(o->log, "w") : NULL;
    if (o->log && !log) return refused("--log", o->log, errno, "give a file that can be written: --log FILE");

    mnist data;
    char why[1024];
    if (mnist_open(&data, &(mnist_options){ .folder = o->data }, why, sizeof why))
        status = failed("no data", why, "give the folder of MNIST's four files: --data DIR");
    else {
        printf("%s\n", data.about);
        fflush(stdout);
        status = learn(o, &data, log);
        mnist_close(&data);
    }
    if (log && fclose(log) && !status) status = refused("--log", o->log, errno, no_room);
    return status;
}

int main(int argc, char **argv)
{
    options o = {
#define X(field, type, option, argument, standard, ...) .field = standard,
        NUMBERS(X)
#undef X
        .out = "vae_mnist.out",
    };
    argp_parse(&command, argc, argv, 0, NULL, &o);

    ad_context_use(ad_context_new(&(ad_options){ .device = o.device }));
    int status = DEVICE_FAILURE;
    if (ad_ok()) status = run(&o);
    else failed(o.device ? o.device : "the device", ad_error(), NULL);
    ad_context_free(NULL);
    return status;
}
