/* The files around a model: IDX arrays, finding or drawing MNIST, pictures. Each test has a folder of its own; the
 * network is never touched: a script named curl stands in $PATH before the real one. */
#include "models/fetch.h"
#include "models/idx.h"
#include "models/mnist.h"
#include "models/picture.h"
#include "models/strokes.h"
#include "tests/test.h"

#include <ftw.h>
#include <math.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

static char folder[256], why[512];

static void enter(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%.200s/taper-test-XXXXXX", base && base[0] ? base : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    why[0] = '\0';
    unsetenv("TAPER_DATA");
    setenv("XDG_CACHE_HOME", folder, 1);
}

static int remove_entry(const char *path, const struct stat *about, int kind, struct FTW *walk)
{
    (void)about, (void)kind, (void)walk;
    return remove(path);
}

static void leave(void)
{
    nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* folder/name; good until the fourth call from now. */
static const char *in_folder(const char *name)
{
    static char paths[4][512];
    static int turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void write_bytes(const char *name, const void *bytes, size_t n)
{
    FILE *file = fopen(in_folder(name), "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, n, file), n);
    ck_assert_int_eq(fclose(file), 0);
}

static void write_gzip(const char *name, const void *bytes, size_t n)
{
    gzFile file = gzopen(in_folder(name), "wb");
    ck_assert_int_eq(gzwrite(file, bytes, (unsigned)n), (int)n);
    ck_assert_int_eq(gzclose(file), Z_OK);
}

#define ck_assert_why(words) ck_assert_msg(strstr(why, words) != NULL, "\"%s\" does not say \"%s\"", why, words)

/* ---- IDX --------------------------------------------------------------------------------------------------------- */

static const uint8_t two_by_three[] = { 0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 10, 11, 12, 13, 14, 255 };

static void check_two_by_three(const char *name)
{
    idx array;
    ck_assert_msg(idx_read(&array, in_folder(name), why, sizeof why) == 0, "%s", why);
    ck_assert_int_eq(array.rank, 2);
    ck_assert_int_eq(array.dim[0], 2);
    ck_assert_int_eq(array.dim[1], 3);
    ck_assert_int_eq(array.dim[2], 1);
    ck_assert_int_eq(array.count, 6);
    ck_assert_mem_eq(array.data, two_by_three + 12, 6);
    idx_free(&array);
    ck_assert_ptr_null(array.data);
}

START_TEST(idx_is_read)
{
    write_bytes("plain", two_by_three, sizeof two_by_three);
    check_two_by_three("plain");
    write_gzip("packed.gz", two_by_three, sizeof two_by_three);
    check_two_by_three("packed.gz");
}
END_TEST

static void refuse(const char *name, const char *words)
{
    idx array;
    ck_assert_int_eq(idx_read(&array, in_folder(name), why, sizeof why), -1);
    ck_assert_why(words);
    ck_assert_why(name);
    ck_assert_ptr_null(array.data);
    ck_assert_int_eq(array.rank, 0);
}

static const struct {
    size_t n;
    uint8_t bytes[24];
    const char *words;
} broken[] = {
    { 0, { 0 }, "is cut short" },
    { 3, { 0, 0, 8 }, "is cut short: 1 of 4 bytes are missing" },
    { 8, { 1, 0, 8, 1, 0, 0, 0, 0 }, "is no IDX file: it begins with 01 00" },
    { 9, { 0, 0, 13, 1, 0, 0, 0, 1, 0 }, "holds elements of type 0x0d" },
    { 4, { 0, 0, 8, 0 }, "has rank 0" },
    { 24, { 0, 0, 8, 5, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1 }, "has rank 5" },
    { 10, { 0, 0, 8, 2, 0, 0, 0, 1, 0, 0 }, "is cut short: 2 of 4 bytes are missing" },
    { 10, { 0, 0, 8, 1, 0, 0, 0, 3, 1, 2 }, "is cut short: 1 of 3 bytes are missing" },
    { 11, { 0, 0, 8, 1, 0, 0, 0, 2, 1, 2, 3 }, "is longer than its 2 elements" },
    { 8, { 0, 0, 8, 1, 255, 255, 255, 255 }, "is too large" },
    { 20, { 0, 0, 8, 4, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0 }, "is too large" },
};

START_TEST(idx_is_refused)
{
    write_bytes("file", broken[_i].bytes, broken[_i].n);
    refuse("file", broken[_i].words);
    write_gzip("file.gz", broken[_i].bytes, broken[_i].n);
    refuse("file.gz", broken[_i].words);
}
END_TEST

START_TEST(idx_of_a_broken_gzip_is_refused)
{
    write_gzip("whole.gz", two_by_three, sizeof two_by_three);
    uint8_t bytes[256];
    FILE *file = fopen(in_folder("whole.gz"), "rb");
    size_t n = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    write_bytes("short.gz", bytes, n - 10);
    refuse("short.gz", "");
    bytes[n - 8] ^= 1; /* in the checksum */
    write_bytes("sum.gz", bytes, n);
    refuse("sum.gz", "data check");
}
END_TEST

START_TEST(idx_needs_a_file)
{
    refuse("nowhere", "No such file");
    mkdir(in_folder("sub"), 0777);
    refuse("sub", "directory");
    idx array;
    ck_assert_int_eq(idx_read(&array, in_folder("nowhere"), NULL, 0), -1);
}
END_TEST

/* ---- MNIST ------------------------------------------------------------------------------------------------------- */

/* FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/ */
static uint64_t fnv(uint64_t hash, const uint8_t *bytes, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

START_TEST(digits_are_the_same_everywhere)
{
    mnist data;
    ck_assert_int_eq(mnist_open(&data, &(mnist_options){ .synthetic = true, .train = 500, .test = 100 }, why, 1), 0);
    ck_assert_str_eq(data.about, "data: synthetic digits (500 train, 100 test)");
    uint64_t hash = fnv(0xcbf29ce484222325u, data.train.images, 500 * MNIST_PIXELS);
    hash = fnv(hash, data.test.images, 100 * MNIST_PIXELS);
    hash = fnv(fnv(hash, data.train.labels, 500), data.test.labels, 100);
    ck_assert_uint_eq(hash, 8930380437517062440u);
    mnist_close(&data);
}
END_TEST

/* The nearest class mean of the training digits tells most test digits: classes differ, and labels belong to them. */
START_TEST(digits_look_like_their_labels)
{
    mnist data;
    ck_assert_int_eq(mnist_open(&data, &(mnist_options){ .synthetic = true, .train = 2000, .test = 500 }, why, 1), 0);
    static double mean[MNIST_CLASSES][MNIST_PIXELS], seen[MNIST_CLASSES];
    for (int64_t i = 0; i < data.train.count; i++) {
        int label = data.train.labels[i];
        seen[label]++;
        for (int p = 0; p < MNIST_PIXELS; p++)
            mean[label][p] += data.train.images[i * MNIST_PIXELS + p];
    }
    int right = 0;
    for (int64_t i = 0; i < data.test.count; i++) {
        double least = INFINITY;
        int nearest = -1;
        for (int c = 0; c < MNIST_CLASSES; c++) {
            double distance = 0;
            ck_assert_double_gt(seen[c], 140);
            for (int p = 0; p < MNIST_PIXELS; p++) {
                double d = data.test.images[i * MNIST_PIXELS + p] - mean[c][p] / seen[c];
                distance += d * d;
            }
            if (distance < least) {
                least = distance;
                nearest = c;
            }
        }
        right += nearest == data.test.labels[i];
    }
    ck_assert_int_gt(right, 375);
    mnist_close(&data);
}
END_TEST

/* Writes a data set of n images, each pixel of image i being i + mark, and labels i % 10. */
static void write_set(const char *sub, const char *images, const char *labels, int n, int mark)
{
    char name[128];
    uint8_t *bytes = calloc(1, 16 + (size_t)n * MNIST_PIXELS);
    const uint8_t image_head[16] = { 0, 0, 8, 3, 0, 0, 0, (uint8_t)n, 0, 0, 0, 28, 0, 0, 0, 28 };
    memcpy(bytes, image_head, 16);
    for (int i = 0; i < n; i++)
        memset(bytes + 16 + i * MNIST_PIXELS, i + mark, MNIST_PIXELS);
    snprintf(name, sizeof name, "%s/%s", sub, images);
    (strstr(images, ".gz") ? write_gzip : write_bytes)(name, bytes, 16 + (size_t)n * MNIST_PIXELS);
    const uint8_t label_head[8] = { 0, 0, 8, 1, 0, 0, 0, (uint8_t)n };
    memcpy(bytes, label_head, 8);
    for (int i = 0; i < n; i++)
        bytes[8 + i] = (uint8_t)(i % 10);
    snprintf(name, sizeof name, "%s/%s", sub, labels);
    write_bytes(name, bytes, 8 + (size_t)n);
    free(bytes);
}

static void write_mnist(const char *sub, int mark)
{
    mkdir(in_folder(sub), 0777);
    write_set(sub, "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte", 12, mark);
    write_set(sub, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", 5, mark);
}

/* Opens, expects success, and returns the first pixel. */
static int first_pixel(const mnist_options *options, const char *about)
{
    mnist data;
    ck_assert_msg(mnist_open(&data, options, why, sizeof why) == 0, "%s", why);
    ck_assert_msg(strstr(data.about, about) != NULL, "\"%s\" does not say \"%s\"", data.about, about);
    int pixel = data.train.images[0];
    mnist_close(&data);
    ck_assert_ptr_null(data.train.images);
    return pixel;
}

START_TEST(folders_are_searched_in_order)
{
    write_mnist("given", 1);
    write_mnist("variable", 2);
    mkdir(in_folder("taper"), 0777);
    write_mnist("taper/mnist", 3);
    mnist_options offline = { .offline = true };
    ck_assert_int_eq(first_pixel(&offline, "/taper/mnist (12 train, 5 test)"), 3);
    unsetenv("XDG_CACHE_HOME");
    setenv("HOME", in_folder("home"), 1);
    mkdir(in_folder("home"), 0777);
    ck_assert_int_eq(first_pixel(&(mnist_options){ .offline = true, .train = 5, .test = 5 },
                                 "data: synthetic digits, as there is no MNIST: "), 0);
    ck_assert_int_eq(rename(in_folder("taper"), in_folder("moved")), 0);
    mkdir(in_folder("home/.cache"), 0777);
    ck_assert_int_eq(rename(in_folder("moved"), in_folder("home/.cache/taper")), 0);
    ck_assert_int_eq(first_pixel(&offline, "home/.cache/taper/mnist ("), 3);
    setenv("TAPER_DATA", in_folder("variable"), 1);
    ck_assert_int_eq(first_pixel(&offline, "data: MNIST from "), 2);
    mnist_options given = { .folder = in_folder("given"), .train = 7, .test = 100 };
    ck_assert_int_eq(first_pixel(&given, "/given (7 train, 5 test)"), 1);
}
END_TEST

static void refuse_mnist(const char *sub, const char *words)
{
    mnist data;
    ck_assert_int_eq(mnist_open(&data, &(mnist_options){ .folder = in_folder(sub) }, why, sizeof why), -1);
    ck_assert_why(words);
    ck_assert_ptr_null(data.train.images);
    ck_assert_ptr_null(data.test.images);
}

START_TEST(bad_folders_are_refused)
{
    refuse_mnist("nowhere", "neither train-images-idx3-ubyte nor train-images-idx3-ubyte.gz is there");
    setenv("TAPER_DATA", in_folder("nowhere"), 1);
    mnist data;
    ck_assert_int_eq(mnist_open(&data, NULL, why, sizeof why), -1);
    write_mnist("a", 1);
    write_bytes("a/t10k-labels-idx1-ubyte", (uint8_t[]){ 0, 0, 8, 1, 0, 0, 0, 1, 7 }, 9);
    refuse_mnist("a", "has 5 images, but there are 1 labels");
    write_bytes("a/t10k-labels-idx1-ubyte", (uint8_t[]){ 0, 0, 8, 1, 0, 0, 0, 5, 7, 1, 10, 2, 3 }, 13);
    refuse_mnist("a", "label 2 is 10, not 0 to 9");
    write_bytes("a/t10k-images-idx3-ubyte", two_by_three, sizeof two_by_three);
    refuse_mnist("a", "holds 2 arrays of 3 x 1, not images of 28 x 28");
}
END_TEST

/* Puts a curl into $PATH that runs these shell commands, with the address in $url. */
static void fake_curl(const char *commands)
{
    char script[1024], path[4096];
    mkdir(in_folder("bin"), 0777);
    snprintf(script, sizeof script, "#!/bin/sh\nfor url; do :; done\necho \"$url\" >>'%s'\n%s\n", in_folder("asked"),
             commands);
    write_bytes("bin/curl", script, strlen(script));
    ck_assert_int_eq(chmod(in_folder("bin/curl"), 0755), 0);
    snprintf(path, sizeof path, "%s:%s", in_folder("bin"), getenv("PATH"));
    setenv("PATH", path, 1);
}

static int lines_asked(void)
{
    int lines = 0, c;
    FILE *file = fopen(in_folder("asked"), "r");
    ck_assert_ptr_nonnull(file);
    while ((c = getc(file)) != EOF)
        lines += c == '\n';
    fclose(file);
    return lines;
}

static const struct {
    const char *commands, *words;
} bad_curls[] = {
    { "echo 'curl: (6) no such host' >&2; exit 6", "curl: (6) no such host" },
    { "printf hello | gzip", "SHA-256 of the unpacked file is 2cf24dba5fb0a30e..., not ba891046e6505d7a..." },
    { "printf hello | gzip | head -c 12", "what came is no whole gzip file" },
    { "printf hello", "SHA-256 of the unpacked file is 2cf24dba5fb0a30e" },
    { "head -c 80000000 /dev/zero | gzip -1", "what came is too large" },
    { ":", "SHA-256" },
};

START_TEST(a_bad_download_leaves_nothing)
{
    fake_curl(bad_curls[_i].commands);
    const char *cache = in_folder("cache/deep");
    mkdir(in_folder("cache"), 0777);
    ck_assert_int_eq(models__fetch_mnist(cache, why, sizeof why), -1);
    ck_assert_why(bad_curls[_i].words);
    ck_assert_int_eq(lines_asked(), 2);   /* both mirrors, then no more */
    ck_assert_int_eq(rmdir(cache), 0);    /* it is empty */
    ck_assert_int_eq(first_pixel(&(mnist_options){ .train = 5, .test = 5 }, "as there is no MNIST: "), 0);
}
END_TEST

START_TEST(no_curl_is_said)
{
    setenv("PATH", in_folder("empty"), 1);
    ck_assert_int_eq(models__fetch_mnist(in_folder("cache"), why, sizeof why), -1);
    ck_assert_why("curl cannot be run");
}
END_TEST

START_TEST(a_good_download_is_kept)
{
    const char *real = getenv("TAPER_MNIST");
    if (!real || access(real, R_OK) != 0) {
        test_skip("TAPER_MNIST names no folder with MNIST");
        return;
    }
    char commands[512];
    snprintf(commands, sizeof commands, "case $url in *ossci*) exit 22; esac; cat '%s'/${url##*/}", real);
    fake_curl(commands);
    mnist_options o = { 0 };
    first_pixel(&o, "/taper/mnist (60000 train, 10000 test)");
    ck_assert_int_eq(lines_asked(), 8);
    first_pixel(&o, "/taper/mnist (60000 train, 10000 test)");
    ck_assert_int_eq(lines_asked(), 8);
    mnist_options given = { .folder = real };
    first_pixel(&given, "(60000 train, 10000 test)");
}
END_TEST

/* ---- pictures ---------------------------------------------------------------------------------------------------- */

START_TEST(a_picture_reads_back)
{
    enum { COUNT = 5, H = 2, W = 3, COLUMNS = 3, ZOOM = 2, GAP = 1, WIDTH = 22, HEIGHT = 11 };
    float pixels[COUNT * H * W];
    for (int i = 0; i < COUNT * H * W; i++)
        pixels[i] = (float)i / 29;
    pixels[0] = -1, pixels[1] = 2, pixels[2] = NAN;
    const picture_options o = { .columns = COLUMNS, .zoom = ZOOM, .gap = GAP };
    const char *path = in_folder("grid.png");
    ck_assert_msg(picture_grid(path, pixels, COUNT, H, W, &o, why, sizeof why) == 0, "%s", why);

    png_image image = { .version = PNG_IMAGE_VERSION };
    ck_assert_int_ne(png_image_begin_read_from_file(&image, path), 0);
    ck_assert_uint_eq(image.format, PNG_FORMAT_GRAY);
    ck_assert_uint_eq(image.width, WIDTH);
    ck_assert_uint_eq(image.height, HEIGHT);
    uint8_t got[HEIGHT][WIDTH], want[HEIGHT][WIDTH] = { 0 };
    ck_assert_int_ne(png_image_finish_read(&image, NULL, got, 0, NULL), 0);
    for (int n = 0; n < COUNT; n++)
        for (int y = 0; y < H * ZOOM; y++)
            for (int x = 0; x < W * ZOOM; x++) {
                int i = (n * H + y / ZOOM) * W + x / ZOOM;
                want[n / COLUMNS * 5 + GAP + y][n % COLUMNS * 7 + GAP + x] =
                    i == 0 || i == 2 ? 0 : i == 1 ? 255 : (uint8_t)lround(255.0 * i / 29);
            }
    ck_assert_mem_eq(got, want, sizeof want);
}
END_TEST

START_TEST(a_picture_has_defaults)
{
    const float pixels[10] = { 0 };
    const char *path = in_folder("grid.png");
    ck_assert_int_eq(picture_grid(path, pixels, 10, 1, 1, NULL, why, sizeof why), 0);
    png_image image = { .version = PNG_IMAGE_VERSION };
    ck_assert_int_ne(png_image_begin_read_from_file(&image, path), 0);
    ck_assert_uint_eq(image.width, 14); /* four columns of one pixel, five gaps of two */
    ck_assert_uint_eq(image.height, 11);
    png_image_free(&image);
    ck_assert_int_eq(picture_grid(path, pixels, 5, 1, 1, &(picture_options){ .columns = 5, .gap = -1 }, why, 9), 0);
    ck_assert_int_ne(png_image_begin_read_from_file(&image, path), 0);
    ck_assert_uint_eq(image.width, 5);
    ck_assert_uint_eq(image.height, 1);
    png_image_free(&image);
}
END_TEST

START_TEST(a_bad_picture_is_refused)
{
    const float pixel = 0;
    ck_assert_int_eq(picture_grid(in_folder("x.png"), &pixel, 0, 1, 1, NULL, why, sizeof why), -1);
    ck_assert_why("0 images of 1 x 1 pixels make no picture");
    ck_assert_int_eq(picture_grid(in_folder("x.png"), &pixel, 1, 1 << 30, 1 << 30, NULL, why, sizeof why), -1);
    ck_assert_why("make a picture of over 268435456 bytes");
    ck_assert_int_eq(picture_grid(in_folder("no/x.png"), &pixel, 1, 1, 1, NULL, why, sizeof why), -1);
    ck_assert_why("no/x.png: No such file");
    mkdir(in_folder("taken"), 0777);
    ck_assert_int_eq(picture_grid(in_folder("taken"), &pixel, 1, 1, 1, NULL, why, sizeof why), -1);
    ck_assert_int_eq(rmdir(in_folder("taken")), 0);
    ck_assert_int_eq(rmdir(folder), 0); /* no temporary file is left */
}
END_TEST

#define add(case, test) tcase_add_test(case, test)
#define add_table(case, test, table) tcase_add_loop_test(case, test, 0, (int)(sizeof table / sizeof table[0]))

Suite *suite_models(void)
{
    Suite *suite = suite_create("models");
    TCase *arrays = tcase_create("idx"), *digits = tcase_create("mnist"), *pictures = tcase_create("picture");
    TCase *cases[] = { arrays, digits, pictures };
    for (int i = 0; i < 3; i++) {
        tcase_add_checked_fixture(cases[i], enter, leave);
        suite_add_tcase(suite, cases[i]);
    }
    add(arrays, idx_is_read);
    add_table(arrays, idx_is_refused, broken);
    add(arrays, idx_of_a_broken_gzip_is_refused);
    add(arrays, idx_needs_a_file);
    add(digits, digits_are_the_same_everywhere);
    add(digits, digits_look_like_their_labels);
    add(digits, folders_are_searched_in_order);
    add(digits, bad_folders_are_refused);
    add_table(digits, a_bad_download_leaves_nothing, bad_curls);
    add(digits, no_curl_is_said);
    add(digits, a_good_download_is_kept);
    add(pictures, a_picture_reads_back);
    add(pictures, a_picture_has_defaults);
    add(pictures, a_bad_picture_is_refused);
    return suite;
}
