/* Fetches MNIST by running curl and sha256sum; see fetch.h. A file is in the folder only once its hash is right. */
#include "models/fetch.h"
#include "models/file.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

extern char **environ;

static const char *const mirrors[] = {
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
};

static const struct {
    const char *name, *hash;
} files[] = {
#define ROW(id, name, hash) { name, hash },
    MNIST_FILES(ROW)
#undef ROW
};

enum { HASH_DIGITS = 64, MIRRORS = sizeof mirrors / sizeof mirrors[0], FILES = sizeof files / sizeof files[0] };

static const int64_t max_unpacked = (int64_t)1 << 26; /* the largest file has 47 040 016 bytes */

/* Keeps the first bytes that come through the pipe, without the last newline, and reads on to its end. */
static void drain(int from, char *text, size_t size)
{
    size_t kept = 0;
    char piece[512];
    for (ssize_t got; (got = read(from, piece, sizeof piece)) > 0 || (got < 0 && errno == EINTR);)
        for (ssize_t i = 0; i < got; i++)
            if (kept + 1 < size)
                text[kept++] = piece[i];
    while (kept > 0 && text[kept - 1] == '\n')
        kept--;
    text[kept] = '\0';
}

/* Runs a program. What it writes to stream `heard` (1 or 2) comes back in text; the other stream goes to descriptor
 * `other`, or nowhere when that is -1; its input is the file at `input`. Returns its exit status, or -1. */
static int run(char *const argv[], const char *input, int heard, int other, char *text, size_t size)
{
    int ends[2], status = -1;
    pid_t child;
    posix_spawn_file_actions_t actions;
    text[0] = '\0';
    if (pipe2(ends, O_CLOEXEC) != 0)
        return -1;
    if (posix_spawn_file_actions_init(&actions) != 0) {
        close(ends[0]);
        close(ends[1]);
        return -1;
    }
    int silent = 3 - heard;
    bool spawned = posix_spawn_file_actions_addopen(&actions, 0, input, O_RDONLY, 0) == 0 &&
                   posix_spawn_file_actions_adddup2(&actions, ends[1], heard) == 0 &&
                   (other < 0 ? posix_spawn_file_actions_addopen(&actions, silent, "/dev/null", O_WRONLY, 0)
                              : posix_spawn_file_actions_adddup2(&actions, other, silent)) == 0 &&
                   posix_spawnp(&child, argv[0], &actions, NULL, argv, environ) == 0;
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (spawned) {
        drain(ends[0], text, size);
        pid_t ended;
        while ((ended = waitpid(child, &status, 0)) < 0 && errno == EINTR)
            ;
        status = ended == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    close(ends[0]);
    return status;
}

/* Fetches url into the open file, from its beginning. */
static int download(const char *url, FILE *out, char *why, size_t size)
{
    char said[256];
    char *argv[] = { "curl", "--fail", "--silent", "--show-error", "--location", "--proto", "=https",
                     "--connect-timeout", "8", "--max-time", "300", "--max-filesize", "16777216",
                     (char *)(uintptr_t)url, NULL };
    if (ftruncate(fileno(out), 0) != 0 || lseek(fileno(out), 0, SEEK_SET) != 0)
        return models__fail(why, size, "%s", strerror(errno));
    int status = run(argv, "/dev/null", 2, fileno(out), said, sizeof said);
    if (status == 0)
        return 0;
    if (status < 0 || status == 127)
        return models__fail(why, size, "curl cannot be run");
    return models__fail(why, size, "%s: %s", url, said);
}

/* Unpacks gzip data from its beginning. */
static int unpack(FILE *packed, FILE *out, char *why, size_t size)
{
    static const char broken[] = "what came is no whole gzip file";
    int descriptor = lseek(fileno(packed), 0, SEEK_SET) == 0 ? dup(fileno(packed)) : -1;
    gzFile in = descriptor < 0 ? NULL : gzdopen(descriptor, "rb");
    if (!in) {
        if (descriptor >= 0)
            close(descriptor);
        return models__fail(why, size, "%s", strerror(errno));
    }
    char piece[1 << 14];
    int got, status = 0;
    int64_t total = 0;
    while (status == 0 && (got = gzread(in, piece, sizeof piece)) != 0) {
        total += got;
        if (got < 0 || total > max_unpacked)
            status = models__fail(why, size, "%s", got < 0 ? broken : "what came is too large");
        else if (fwrite(piece, 1, (size_t)got, out) != (size_t)got)
            status = models__fail(why, size, "%s", strerror(errno));
    }
    if (gzclose(in) != Z_OK && status == 0)
        status = models__fail(why, size, "%s", broken);
    if (status == 0 && fflush(out) != 0)
        status = models__fail(why, size, "%s", strerror(errno));
    return status;
}

static int verify(const char *path, const char *hash, char *why, size_t size)
{
    char said[HASH_DIGITS + 1];
    char *argv[] = { "sha256sum", NULL };
    int status = run(argv, path, 1, -1, said, sizeof said);
    if (status != 0 || strlen(said) != HASH_DIGITS)
        return models__fail(why, size, "sha256sum cannot be run");
    if (strcmp(said, hash) != 0)
        return models__fail(why, size, "SHA-256 of the unpacked file is %.16s..., not %.16s...", said, hash);
    return 0;
}

/* One file from one mirror. */
static int fetch(const char *folder, const char *mirror, const char *name, const char *hash, FILE *packed, char *why,
                 size_t size)
{
    models__file file;
    char *url = NULL, *path = NULL, reason[384];
    if (asprintf(&url, "%s%s.gz", mirror, name) < 0)
        url = NULL;
    if (asprintf(&path, "%s/%s", folder, name) < 0)
        path = NULL;
    int status = -1;
    if (!url || !path)
        models__fail(why, size, "out of memory");
    else if (download(url, packed, why, size) == 0 && models__file_open(&file, path, why, size) == 0) {
        status = unpack(packed, file.stream, reason, sizeof reason);
        if (status == 0)
            status = verify(file.temporary, hash, reason, sizeof reason);
        if (status != 0) {
            models__fail(why, size, "%s refused: %s", url, reason);
            models__file_discard(&file);
        } else {
            status = models__file_commit(&file, why, size);
        }
    }
    free(url);
    free(path);
    return status;
}

/* mkdir -p */
static int make_folder(const char *folder, char *why, size_t size)
{
    char *path = strdup(folder);
    if (!path)
        return models__fail(why, size, "out of memory");
    int status = 0;
    for (char *end = path + 1; status == 0; end++) {
        char c = *end;
        if (c != '/' && c != '\0')
            continue;
        *end = '\0';
        if (mkdir(path, 0777) != 0 && errno != EEXIST)
            status = models__fail(why, size, "%s: %s", path, strerror(errno));
        *end = c;
        if (c == '\0')
            break;
    }
    free(path);
    return status;
}

int models__fetch_mnist(const char *folder, char *why, size_t size)
{
    if (make_folder(folder, why, size) != 0)
        return -1;
    FILE *packed = tmpfile();
    if (!packed)
        return models__fail(why, size, "no temporary file: %s", strerror(errno));
    int status = 0;
    for (int i = 0; i < FILES && status == 0; i++) {
        status = -1;
        for (int m = 0; m < MIRRORS && status != 0; m++)
            status = fetch(folder, mirrors[m], files[i].name, files[i].hash, packed, why, size);
    }
    fclose(packed);
    return status;
}
