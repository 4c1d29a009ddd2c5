/* Reads IDX files, plain or gzip; see idx.h. Called by mnist.c and by users with data of their own. */
#include "models/idx.h"
#include "models/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { UNSIGNED_BYTE = 8 };

/* Reads exactly n bytes. gzread takes an unsigned count, hence the pieces. Returns 0, or -1 with the reason. */
static int read_exactly(gzFile file, uint8_t *out, int64_t n, const char *path, char *why, size_t size)
{
    for (int64_t done = 0; done < n;) {
        int64_t piece = n - done < 1 << 20 ? n - done : 1 << 20;
        int got = gzread(file, out + done, (unsigned)piece);
        int code;
        const char *message = gzerror(file, &code);
        if (got < 0)
            return models__fail(why, size, "%s: %s", path, code == Z_ERRNO ? strerror(errno) : message);
        if (got == 0)
            return models__fail(why, size, "%s is cut short: %lld of %lld bytes are missing", path,
                                (long long)(n - done), (long long)n);
        done += got;
    }
    return 0;
}

static int read_header(gzFile file, idx *array, const char *path, char *why, size_t size)
{
    uint8_t magic[4], word[4];
    if (read_exactly(file, magic, 4, path, why, size) != 0)
        return -1;
    if (magic[0] != 0 || magic[1] != 0)
        return models__fail(why, size, "%s is no IDX file: it begins with %02x %02x, not 00 00", path, magic[0],
                            magic[1]);
    if (magic[2] != UNSIGNED_BYTE)
        return models__fail(why, size, "%s holds elements of type 0x%02x; only unsigned bytes (0x08) are read", path,
                            magic[2]);
    if (magic[3] < 1 || magic[3] > IDX_MAX_RANK)
        return models__fail(why, size, "%s has rank %d; 1 to %d are read", path, magic[3], IDX_MAX_RANK);
    array->rank = magic[3];
    array->count = 1;
    for (int i = 0; i < IDX_MAX_RANK; i++)
        array->dim[i] = 1;
    for (int i = 0; i < array->rank; i++) {
        if (read_exactly(file, word, 4, path, why, size) != 0)
            return -1;
        array->dim[i] = (int64_t)word[0] << 24 | word[1] << 16 | word[2] << 8 | word[3];
        /* Both factors are below 2^32, so the product cannot overflow before it is refused. */
        array->count *= array->dim[i];
        if (array->count > IDX_MAX_BYTES)
            return models__fail(why, size, "%s is too large: its header says more than %lld bytes", path,
                                (long long)IDX_MAX_BYTES);
    }
    return 0;
}

static int read_data(gzFile file, idx *array, const char *path, char *why, size_t size)
{
    array->data = malloc(array->count > 0 ? (size_t)array->count : 1);
    if (!array->data)
        return models__fail(why, size, "%s: no memory for %lld bytes", path, (long long)array->count);
    if (read_exactly(file, array->data, array->count, path, why, size) != 0)
        return -1;
    /* One byte more makes zlib check the trailing checksum, too. */
    uint8_t beyond;
    int got = gzread(file, &beyond, 1), code;
    if (got > 0)
        return models__fail(why, size, "%s is longer than its %lld elements", path, (long long)array->count);
    const char *message = gzerror(file, &code);
    if (got < 0 || (code != Z_OK && code != Z_STREAM_END))
        return models__fail(why, size, "%s: %s", path, message);
    return 0;
}

int idx_read(idx *array, const char *path, char *why, size_t size)
{
    *array = (idx){ 0 };
    gzFile file = gzopen(path, "rbe");
    if (!file)
        return models__fail(why, size, "%s: %s", path, errno ? strerror(errno) : "out of memory");
    gzbuffer(file, 1 << 17);
    int status = read_header(file, array, path, why, size);
    if (status == 0)
        status = read_data(file, array, path, why, size);
    gzclose(file);
    if (status != 0)
        idx_free(array);
    return status;
}

void idx_free(idx *array)
{
    free(array->data);
    *array = (idx){ 0 };
}
