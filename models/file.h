/* Files written whole or not at all: a temporary file beside the target, renamed when complete.
 * Called by mnist.c and picture.c. Functions that return int give 0, or -1 with the reason in `why`. */
#ifndef MODELS_FILE_H
#define MODELS_FILE_H

#include <stddef.h>
#include <stdio.h>

typedef struct models__file {
    FILE *stream;
    char *path;
    char *temporary;
} models__file;

/* Opens a temporary file beside path; it is finished by _commit or _discard. */
int models__file_open(models__file *file, const char *path, char *why, size_t size);

/* Closes and renames: path now holds what was written. On failure nothing is left behind. */
int models__file_commit(models__file *file, char *why, size_t size);

/* Closes and removes what was written; path is as it was. */
void models__file_discard(models__file *file);

/* Writes the reason, printf's way, and returns -1. why may be NULL when size is 0. */
__attribute__((format(printf, 3, 4))) int models__fail(char *why, size_t size, const char *format, ...);

#endif
