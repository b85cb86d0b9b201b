/* A lease says who runs a stage, so that two processes do not work against each other; what is
 * written is guarded by compare-and-set, never by a lease. So it is harmless that a process which
 * hangs longer than its lease goes on for a moment beside its successor. */
#include "run/lease.h"

#include "core/run.h"
#include "run/run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POLL_MS 200
#define GRACE_MS 5000
/* Ours counts as ended a little earlier than the server's: clocks may run at other speeds. */
#define MARGIN_MS 500

static const char conductor[] = "conductor";

void leases_init(struct leases *l, const struct migration *m, unsigned stages)
{
    memset(l, 0, sizeof(*l));
    l->m = m;
    if ((stages & RUN_ALL) == RUN_ALL)
        l->names[l->n++] = "run";
    if (stages & RUN_SNAPSHOT)
        l->names[l->n++] = conductor;
    if (stages & RUN_CAPTURE)
        l->names[l->n++] = "capture";
    if (stages & RUN_APPLY)
        l->names[l->n++] = "apply";
}

/* ---- processes that vanished ---- */

static uint32_t hash_more(uint32_t h, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)text[i]) * 16777619u;
    return h;
}

void holder_host(char out[HOLDER_HOST_MAX])
{
    char name[60] = "localhost";
    char text[100];
    uint32_t h = 2166136261u;
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    ssize_t len = readlink("/proc/self/ns/pid", text, sizeof(text));

    if (len > 0)
        h = hash_more(h, text, (size_t)len);
    if (f && fgets(text, sizeof(text), f))
        h = hash_more(h, text, strlen(text));
    if (f)
        fclose(f);
    gethostname(name, sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    snprintf(out, HOLDER_HOST_MAX, "%s-%08" PRIx32, name, h);
}

/* host:pid:start; 0 if it is not such a text, or of another host. */
static int holder_pid(const char *holder, unsigned long long *start)
{
    char host[HOLDER_HOST_MAX];
    const char *pid = NULL;
    const char *ticks = strrchr(holder, ':');
    size_t len;

    holder_host(host);
    len = strlen(host);
    if (strncmp(holder, host, len) == 0 && holder[len] == ':')
        pid = holder + len + 1;
    if (!pid || !ticks || ticks < pid)
        return 0;
    *start = strtoull(ticks + 1, NULL, 10);
    return atoi(pid);
}

bool holder_is_dead(const char *holder)
{
    unsigned long long started = 0;
    unsigned long long ticks = 0;
    int pid = holder_pid(holder, &started);
    char path[60];
    char text[1024];
    char *p = NULL;
    FILE *f;

    if (pid <= 0 || started == 0)
        return false;
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    f = fopen(path, "re");
    if (!f)
        return access("/proc/self/stat", R_OK) == 0;
    if (fgets(text, sizeof(text), f))
        p = strrchr(text, ')');
    fclose(f);
    if (!p || sscanf(p + 1,
                     " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d "
                     "%*d %llu",
                     &ticks) != 1)
        return false;
    /* The same pid with another start, or a zombie: the holder is gone. */
    return ticks != started || p[2] == 'Z';
}

/* ---- taking ---- */

static int64_t lease_until(struct db *target, const char *name, struct err *e)
{
    json_t *body;
    int64_t until = 0;

    if (fact_read(target, "lease", name, &body, NULL, e) < 0)
        return -1;
    if (body)
        until = fact_int(body, "until_ms", 0);
    json_decref(body);
    return until;
}

static int refuse(const char *name, const char *holder, struct err *e)
{
    err_set(e, ERR_REFUSED, "another process runs this migration: %s holds the lease %s", holder,
            name);
    return err_hint(e, "stop that process first, or leave the work to it");
}

/* Waits until the lease is ours, or until it is clear that its holder lives: it was renewed. */
static int take_one(struct leases *l, struct db *target, const char *name, struct err *e)
{
    int64_t deadline = mono_ms() + l->m->lease_ms + GRACE_MS;
    char holder[HOLDER_MAX] = "";
    int64_t first = -1;

    for (;;) {
        int rc = lease_take(target, name, l->m->holder, l->m->lease_ms, e);
        int64_t until;

        if (rc != 0)
            return rc < 0 ? -1 : 0;
        if (lease_held(target, name, holder, sizeof(holder), e) < 0)
            return -1;
        if (holder[0] && holder_is_dead(holder)) {
            if (lease_release(target, name, holder, e) < 0)
                return -1;
            continue;
        }
        until = lease_until(target, name, e);
        if (until < 0 || stop_check(e) < 0)
            return -1;
        if (first < 0)
            first = until;
        if (holder[0] && (until > first || mono_ms() > deadline))
            return refuse(name, holder, e);
        nap_ms(POLL_MS);
    }
}

int leases_take(struct leases *l, struct db *target, struct err *e)
{
    for (size_t i = 0; i < l->n; i++) {
        if (l->names[i] == conductor)
            continue;
        if (take_one(l, target, l->names[i], e) < 0)
            return -1;
        l->taken[i] = true;
    }
    return leases_renew(l, target, e);
}

/* Without waiting, but at once from a dead process: 1 ours, 0 another's, -1. */
static int try_one(struct leases *l, struct db *target, const char *name, struct err *e)
{
    char holder[HOLDER_MAX] = "";
    int rc = lease_take(target, name, l->m->holder, l->m->lease_ms, e);

    if (rc == 0 && lease_held(target, name, holder, sizeof(holder), e) < 0)
        return -1;
    if (rc == 0 && holder[0] && holder_is_dead(holder)) {
        if (lease_release(target, name, holder, e) < 0)
            return -1;
        rc = lease_take(target, name, l->m->holder, l->m->lease_ms, e);
    }
    return rc;
}

static int renew_conductor(struct leases *l, struct db *target, int64_t until, struct err *e)
{
    int rc = try_one(l, target, conductor, e);

    if (rc >= 0)
        l->conductor_until = rc ? until : 0;
    return rc;
}

int leases_try(struct leases *l, struct db *target, struct err *e)
{
    for (size_t i = 0; i < l->n; i++) {
        int rc = try_one(l, target, l->names[i], e);

        if (rc == 0)
            leases_release(l, target);
        if (rc <= 0)
            return rc;
        l->taken[i] = true;
    }
    return leases_renew(l, target, e) < 0 ? -1 : 1;
}

int leases_renew(struct leases *l, struct db *target, struct err *e)
{
    int64_t until = mono_ms() + l->m->lease_ms - MARGIN_MS;

    for (size_t i = 0; i < l->n; i++) {
        bool shared = l->names[i] == conductor;
        char holder[HOLDER_MAX] = "";
        int rc = shared ? renew_conductor(l, target, until, e)
                        : lease_take(target, l->names[i], l->m->holder, l->m->lease_ms, e);

        if (rc < 0)
            return -1;
        l->taken[i] = rc > 0;
        if (l->taken[i] || shared)
            continue;
        if (lease_held(target, l->names[i], holder, sizeof(holder), e) < 0)
            return -1;
        return err_set(e, ERR_FENCED, "%s took over the lease %s",
                       holder[0] ? holder : "another process", l->names[i]);
    }
    l->until = until;
    return 0;
}

void leases_release(struct leases *l, struct db *target)
{
    for (size_t i = 0; i < l->n; i++) {
        struct err ignored;

        if (l->taken[i])
            lease_release(target, l->names[i], l->m->holder, &ignored);
        l->taken[i] = false;
    }
}
