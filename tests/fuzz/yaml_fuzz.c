/* Any bytes as lockstep.yaml: an answer, never a crash, and never a half-filled configuration. */
#include "config/config.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static char path[40];
    struct config c;
    struct err e = {0};

    if (fd < 0) {
        fd = memfd_create("yaml", 0);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    }
    invariant(ftruncate(fd, 0) == 0);
    invariant(pwrite(fd, data, size, 0) == (ssize_t)size);
    if (config_load(path, &c, &e) == 0) {
        invariant(c.migration && c.source && c.target && c.journal && c.listen);
        invariant(c.snapshot.workers > 0);
        config_uri_redact(&c.arena, c.source);
        config_release(&c);
    } else {
        invariant(e.class == ERR_CONFIG && e.msg[0]);
    }
    return 0;
}
