/* Finds or draws MNIST; see mnist.h for the order. Called by loaders and programs; keeps images as bytes, as they are
 * a quarter of the size of floats and are scaled batch by batch. */
#include "models/mnist.h"
#include "models/fetch.h"
#include "models/file.h"
#include "models/idx.h"
#include "models/strokes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum file {
#define ROW(id, name, hash) id,
    MNIST_FILES(ROW)
#undef ROW
};

static const char *const names[] = {
#define ROW(id, name, hash) name,
    MNIST_FILES(ROW)
#undef ROW
};

/* Reads folder/name or folder/name.gz. */
static int read_file(idx *array, const char *folder, enum file which, char *why, size_t size)
{
    static const char *const endings[] = { "", ".gz" };
    for (int i = 0; i < 2; i++) {
        char *path;
        if (asprintf(&path, "%s/%s%s", folder, names[which], endings[i]) < 0)
            return models__fail(why, size, "out of memory");
        int found = access(path, F_OK) == 0, status = found ? idx_read(array, path, why, size) : 0;
        free(path);
        if (found)
            return status;
    }
    return models__fail(why, size, "%s: neither %s nor %s.gz is there", folder, names[which], names[which]);
}

static int check(const char *folder, enum file which, const idx *images, const idx *labels, char *why, size_t size)
{
    if (images->rank != 3 || images->dim[1] != MNIST_SIDE || images->dim[2] != MNIST_SIDE)
        return models__fail(why, size, "%s/%s holds %lld arrays of %lld x %lld, not images of %d x %d", folder,
                            names[which], (long long)images->dim[0], (long long)images->dim[1],
                            (long long)images->dim[2], MNIST_SIDE, MNIST_SIDE);
    if (labels->rank != 1 || labels->dim[0] != images->dim[0])
        return models__fail(why, size, "%s/%s has %lld images, but there are %lld labels", folder, names[which],
                            (long long)images->dim[0], (long long)labels->dim[0]);
    for (int64_t i = 0; i < labels->count; i++)
        if (labels->data[i] >= MNIST_CLASSES)
            return models__fail(why, size, "%s: label %lld is %d, not 0 to 9", folder, (long long)i, labels->data[i]);
    return 0;
}

/* The labels' file follows the images' in the list. */
static int read_set(mnist_set *set, const char *folder, enum file images_file, int64_t most, char *why, size_t size)
{
    idx images = { 0 }, labels = { 0 };
    if (read_file(&images, folder, images_file, why, size) != 0 ||
        read_file(&labels, folder, images_file + 1, why, size) != 0 ||
        check(folder, images_file, &images, &labels, why, size) != 0) {
        idx_free(&images);
        idx_free(&labels);
        return -1;
    }
    int64_t count = most > 0 && most < labels.count ? most : labels.count;
    *set = (mnist_set){ count, images.data, labels.data };
    return 0;
}

static int read_folder(mnist *data, const char *folder, const mnist_options *o, char *why, size_t size)
{
    if (read_set(&data->train, folder, TRAIN_IMAGES, o->train, why, size) == 0 &&
        read_set(&data->test, folder, TEST_IMAGES, o->test, why, size) == 0) {
        snprintf(data->about, sizeof data->about, "data: MNIST from %.400s (%lld train, %lld test)", folder,
                 (long long)data->train.count, (long long)data->test.count);
        return 0;
    }
    mnist_close(data);
    return -1;
}

static int draw_set(mnist_set *set, int stream, int64_t count)
{
    set->count = count;
    set->images = malloc((size_t)count * MNIST_PIXELS);
    set->labels = malloc((size_t)count);
    if (!set->images || !set->labels)
        return -1;
    for (int64_t i = 0; i < count; i++)
        set->labels[i] = (uint8_t)models__draw_digit(set->images + i * MNIST_PIXELS, stream, i);
    return 0;
}

/* because: why there is no MNIST, or "" when digits were asked for. */
static int draw(mnist *data, const mnist_options *o, const char *because, char *why, size_t size)
{
    if (draw_set(&data->train, 0, o->train > 0 ? o->train : 60000) != 0 ||
        draw_set(&data->test, 1, o->test > 0 ? o->test : 10000) != 0) {
        mnist_close(data);
        return models__fail(why, size, "no memory for the digits");
    }
    snprintf(data->about, sizeof data->about, "data: synthetic digits%s%.400s (%lld train, %lld test)",
             because[0] ? ", as there is no MNIST: " : "", because, (long long)data->train.count,
             (long long)data->test.count);
    return 0;
}

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && value[0] ? value : NULL;
}

/* The caller frees it; NULL when there is no home or no memory. */
static char *cache_folder(void)
{
    const char *cache = variable("XDG_CACHE_HOME"), *home = variable("HOME");
    char *folder = NULL;
    if (!cache && !home)
        return NULL;
    return asprintf(&folder, "%s%s/taper/mnist", cache ? cache : home, cache ? "" : "/.cache") < 0 ? NULL : folder;
}

/* Steps 3 to 5. A corrupt cache is fetched anew. */
static int search(mnist *data, const mnist_options *o, char *why, size_t size)
{
    char because[512] = "no cache folder, as neither $XDG_CACHE_HOME nor $HOME is set";
    char *folder = cache_folder();
    if (folder) {
        int status = read_folder(data, folder, o, because, sizeof because);
        if (status != 0 && !o->offline && models__fetch_mnist(folder, because, sizeof because) == 0)
            status = read_folder(data, folder, o, because, sizeof because);
        free(folder);
        if (status == 0)
            return 0;
    }
    return draw(data, o, because, why, size);
}

int mnist_open(mnist *data, const mnist_options *options, char *why, size_t size)
{
    mnist_options o = options ? *options : (mnist_options){ 0 };
    *data = (mnist){ 0 };
    if (o.synthetic)
        return draw(data, &o, "", why, size);
    if (!o.folder)
        o.folder = variable("TAPER_DATA");
    return o.folder ? read_folder(data, o.folder, &o, why, size) : search(data, &o, why, size);
}

void mnist_close(mnist *data)
{
    free(data->train.images);
    free(data->train.labels);
    free(data->test.images);
    free(data->test.labels);
    *data = (mnist){ 0 };
}
