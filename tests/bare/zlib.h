/* The part of zlib that models/ uses, over plain files, for machines without it; see tests/bare/build. A compressed
 * file is read as it is, and so refused as no IDX file. */
#ifndef TESTS_BARE_ZLIB_H
#define TESTS_BARE_ZLIB_H

#include <stdio.h>
#include <string.h>

typedef FILE *gzFile;
enum { Z_OK = 0, Z_STREAM_END = 1, Z_ERRNO = -1 };

static inline gzFile gzopen(const char *path, const char *mode)
{
    return fopen(path, mode);
}
static inline gzFile gzdopen(int descriptor, const char *mode)
{
    return fdopen(descriptor, mode);
}
static inline int gzbuffer(gzFile file, unsigned bytes)
{
    return setvbuf(file, NULL, _IOFBF, bytes);
}
static inline int gzread(gzFile file, void *out, unsigned n)
{
    size_t got = fread(out, 1, n, file);
    return got || !ferror(file) ? (int)got : -1;
}
static inline const char *gzerror(gzFile file, int *code)
{
    *code = ferror(file) ? Z_ERRNO : Z_OK;
    return "it cannot be read";
}
static inline int gzclose(gzFile file)
{
    return fclose(file) ? Z_ERRNO : Z_OK;
}

#endif
