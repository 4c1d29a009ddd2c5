/* Files written whole or not at all; see file.h. */
#include "models/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int models__fail(char *why, size_t size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, size, format, arguments);
    va_end(arguments);
    return -1;
}

static void forget(models__file *file)
{
    free(file->path);
    free(file->temporary);
    *file = (models__file){ 0 };
}

int models__file_open(models__file *file, const char *path, char *why, size_t size)
{
    *file = (models__file){ 0 };
    int descriptor = -1;
    file->path = strdup(path);
    /* Not mkstemp: its files are private, whatever the user's umask. */
    for (int attempt = 0; attempt < 100 && file->path && descriptor < 0; attempt++) {
        if (asprintf(&file->temporary, "%s.%ld-%d", path, (long)getpid(), attempt) < 0) {
            file->temporary = NULL;
            break;
        }
        descriptor = open(file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (descriptor >= 0 || errno != EEXIST)
            break;
        free(file->temporary);
        file->temporary = NULL;
    }
    if (descriptor >= 0 && (file->stream = fdopen(descriptor, "wb")))
        return 0;
    models__fail(why, size, "%s: %s", path, strerror(errno));
    if (descriptor >= 0) {
        close(descriptor);
        unlink(file->temporary);
    }
    forget(file);
    return -1;
}

int models__file_commit(models__file *file, char *why, size_t size)
{
    int bad = ferror(file->stream);
    errno = bad ? EIO : 0;
    bad |= fclose(file->stream);
    if (bad || rename(file->temporary, file->path) != 0) {
        models__fail(why, size, "%s: %s", file->path, strerror(errno));
        unlink(file->temporary);
        forget(file);
        return -1;
    }
    forget(file);
    return 0;
}

void models__file_discard(models__file *file)
{
    fclose(file->stream);
    unlink(file->temporary);
    forget(file);
}
