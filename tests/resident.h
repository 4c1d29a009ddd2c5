/* What of the process is resident, and whether a sanitizer's memory is among it. Included by test files alone. */
#ifndef TESTS_RESIDENT_H
#define TESTS_RESIDENT_H

#include <stdio.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

/* Kilobytes that are resident, exactly (statm's figure is batched per thread); -1 where the system does not tell. */
static inline long resident(void)
{
    char line[256];
    long kilobytes = -1;
    FILE *f = fopen("/proc/self/smaps_rollup", "r");
    while (f && kilobytes < 0 && fgets(line, sizeof line, f)) sscanf(line, "Rss: %ld", &kilobytes);
    if (f) fclose(f);
    return kilobytes;
}

#endif
