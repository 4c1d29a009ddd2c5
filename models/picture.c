/* Writes image grids as PNG; see picture.h. Called by programs; assumes pixels that do not change meanwhile.
 * libpng's simplified interface is used, as it returns its errors instead of jumping. */
#include "models/picture.h"
#include "models/file.h"

#include <png.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const int64_t max_bytes = (int64_t)1 << 28;

/* Where the images lie: cell sizes and picture sizes in screen pixels. */
typedef struct grid {
    int columns, rows, zoom, gap;
    int64_t width, height;
} grid;

static grid lay_out(int count, int height, int width, const picture_options *options)
{
    picture_options o = options ? *options : (picture_options){ 0 };
    grid g = { .columns = o.columns, .zoom = o.zoom > 0 ? o.zoom : 1, .gap = o.gap == 0 ? 2 : o.gap < 0 ? 0 : o.gap };
    if (g.columns <= 0)
        for (g.columns = 1; (int64_t)g.columns * g.columns < count;)
            g.columns++;
    g.rows = (count - 1) / g.columns + 1;
    /* At most 2^31 images of 2^31 * zoom pixels: saturate rather than overflow. */
    double w = ((double)width * g.zoom + g.gap) * g.columns + g.gap;
    double h = ((double)height * g.zoom + g.gap) * g.rows + g.gap;
    g.width = w * h <= (double)max_bytes ? (int64_t)w : -1;
    g.height = w * h <= (double)max_bytes ? (int64_t)h : -1;
    return g;
}

static uint8_t gray(float v)
{
    if (!(v > 0))
        return 0;
    return v < 1 ? (uint8_t)(255 * v + 0.5f) : 255;
}

/* image (height, width) -> its zoomed place on the canvas (g.height, g.width) */
static void paint(uint8_t *canvas, const grid *g, int place, const float *image, int height, int width)
{
    int64_t top = g->gap + (int64_t)(place / g->columns) * (height * g->zoom + g->gap);
    int64_t left = g->gap + (int64_t)(place % g->columns) * (width * g->zoom + g->gap);
    for (int i = 0; i < height * g->zoom; i++)
        for (int j = 0; j < width * g->zoom; j++)
            canvas[(top + i) * g->width + left + j] = gray(image[(int64_t)(i / g->zoom) * width + j / g->zoom]);
}

static int write_png(const char *path, const uint8_t *canvas, const grid *g, char *why, size_t size)
{
    models__file file;
    if (models__file_open(&file, path, why, size) != 0)
        return -1;
    png_image image = {
        .version = PNG_IMAGE_VERSION,
        .width = (png_uint_32)g->width,
        .height = (png_uint_32)g->height,
        .format = PNG_FORMAT_GRAY,
    };
    if (!png_image_write_to_stdio(&image, file.stream, 0, canvas, 0, NULL)) {
        models__file_discard(&file);
        return models__fail(why, size, "%s: %s", path, image.message);
    }
    return models__file_commit(&file, why, size);
}

int picture_grid(const char *path, const float *pixels, int count, int height, int width,
                 const picture_options *options, char *why, size_t size)
{
    if (count <= 0 || height <= 0 || width <= 0)
        return models__fail(why, size, "%s: %d images of %d x %d pixels make no picture", path, count, height, width);
    grid g = lay_out(count, height, width, options);
    if (g.width < 0)
        return models__fail(why, size, "%s: %d images of %d x %d pixels, %d-fold, make a picture of over %lld bytes",
                            path, count, height, width, g.zoom, (long long)max_bytes);
    uint8_t *canvas = calloc((size_t)g.height, (size_t)g.width);
    if (!canvas)
        return models__fail(why, size, "%s: no memory for %lld x %lld pixels", path, (long long)g.height,
                            (long long)g.width);
    for (int i = 0; i < count; i++)
        paint(canvas, &g, i, pixels + (int64_t)i * height * width, height, width);
    int status = write_png(path, canvas, &g, why, size);
    free(canvas);
    return status;
}
