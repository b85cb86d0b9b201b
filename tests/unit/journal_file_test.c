/* The file journal under faults of the disk and power loss. What it promises to its callers is in
 * tests/conformance/journal_test.c. */
#include "tests/unit/journal_file_fixture.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* ---- faults: the Nth call fails, once ---- */

enum call { CALL_WRITE, CALL_DATASYNC, CALL_SYNC };
static struct {
    enum call call;
    int nth;   /* counts down; 0: it happened */
    int error; /* 0: a short write */
} fault;

static bool fault_hits(enum call call)
{
    return call == fault.call && fault.nth > 0 && --fault.nth == 0;
}

static ssize_t faulty_pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
    struct iovec half = iov[0];

    if (!fault_hits(CALL_WRITE))
        return pwritev(fd, iov, n, offset);
    half.iov_len = (half.iov_len + 1) / 2;
    if (fault.error) {
        /* Part of it reaches the file all the same. */
        assert_true(pwritev(fd, &half, 1, offset) > 0);
        errno = fault.error;
        return -1;
    }
    return pwritev(fd, &half, 1, offset);
}

static int faulty_fdatasync(int fd)
{
    if (!fault_hits(CALL_DATASYNC))
        return fdatasync(fd);
    errno = fault.error;
    return -1;
}

static int faulty_fsync(int fd)
{
    if (!fault_hits(CALL_SYNC))
        return fsync(fd);
    errno = fault.error;
    return -1;
}

struct progress {
    uint64_t durable;
    long note; /* the last one flushed */
    bool fatal;
};

static int once_more(struct journal_writer *w, int (*what)(struct journal_writer *, struct err *),
                     struct err *e)
{
    if (what(w, e) == 0)
        return 0;
    /* A full disk heals by itself; everything else is final. */
    if (e->class == ERR_RETRY && fault.error == ENOSPC)
        return what(w, e);
    return -1;
}

static void work(struct fixture *f, struct journal_writer *w, struct progress *p)
{
    for (unsigned i = 0; i < 60 && !p->fatal; i++) {
        char note[32];

        snprintf(note, sizeof(note), "n%" PRIu64, journal_next(w));
        if (i % 4 != 3) {
            p->fatal = once_more(w, append_one, &f->e) < 0;
            continue;
        }
        ok(f, journal_note(w, note, &f->e));
        p->fatal = once_more(w, journal_flush, &f->e) < 0;
        if (!p->fatal)
            p->note = atol(note + 1);
    }
    p->durable = journal_durable(w);
    if (p->fatal) {
        assert_int_equal(f->e.class, ERR_FATAL);
        assert_int_equal(append_one(w, &f->e), -1);
        assert_int_equal(f->e.class, ERR_FATAL);
        assert_int_equal(journal_flush(w, &f->e), -1);
    }
}

/* What the next writer and readers find must hold whatever was reported before. */
static void check_after(struct fixture *f, const struct progress *p)
{
    char *note;
    struct journal_writer *w = writer(f, &note);
    long noted = note ? atol(note + 1) : 0;

    assert_true(journal_next(w) >= p->durable);
    assert_true(noted >= p->note);
    assert_true((uint64_t)noted <= journal_next(w));
    free(note);
    append(f, w, 2);
    ok(f, journal_flush(w, &f->e));
    assert_int_equal(read_all(f, 0), journal_next(w));
    journal_writer_close(w);
}

static int run_fault(struct fixture *f, enum call call, int nth, int error)
{
    struct progress p = {0};
    struct journal_writer *w;
    char *note;
    int missed;

    remove_tree(f->dir);
    fault.call = call;
    fault.nth = nth;
    fault.error = error;
    file_sys = (struct file_sys){faulty_pwritev, faulty_fdatasync, faulty_fsync};
    if (journal_writer_open(&f->o, &w, &note, &f->e) == 0) {
        work(f, w, &p);
        journal_writer_close(w);
    }
    missed = fault.nth > 0;
    if (!missed && error && error != ENOSPC)
        assert_true(p.fatal || p.durable == 0);
    if (missed || (!p.fatal && p.durable))
        assert_int_equal(p.durable, 45);
    file_sys = real_sys;
    check_after(f, &p);
    return missed;
}

static void test_every_call_fails(void **state)
{
    static const struct {
        enum call call;
        int error;
        int least;
    } faults[] = {{CALL_WRITE, EIO, 30},    {CALL_WRITE, ENOSPC, 30},    {CALL_WRITE, 0, 30},
                  {CALL_DATASYNC, EIO, 20}, {CALL_DATASYNC, ENOSPC, 20}, {CALL_SYNC, EIO, 2}};

    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        int nth = 1;

        /* A sync that fails for want of space is as final as any other. */
        while (!run_fault(*state, faults[i].call, nth, faults[i].error))
            nth++;
        if (nth < faults[i].least)
            fail_msg("fault %zu was tried at %d calls only", i, nth);
    }
}

static void test_disk_full(void **state)
{
    struct fixture *f = *state;
    struct journal_writer *w = writer(f, NULL);
    char path[160];
    struct stat before;
    struct stat after;

    append(f, w, 2);
    ok(f, journal_flush(w, &f->e));
    segment_path(f, 0, path);
    assert_int_equal(stat(path, &before), 0);
    append(f, w, 2);
    fault.call = CALL_WRITE;
    fault.nth = 1;
    fault.error = ENOSPC;
    file_sys.pwritev = faulty_pwritev;
    assert_int_equal(journal_flush(w, &f->e), -1);
    assert_int_equal(f->e.class, ERR_RETRY);
    assert_non_null(strstr(f->e.msg, "the disk is full"));
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_size, after.st_size);
    ok(f, journal_flush(w, &f->e));
    assert_int_equal(read_all(f, 0), 4);
    journal_writer_close(w);
}

/* ---- power loss ---- */

/* The disk as the kernel last promised it: a file's bytes as of its last sync, names as of the last
 * sync of the directory. At every call the power goes, in two ways: the marks' file as synced, or
 * as written (the kernel may have written it back early). The segments are as synced. */
static struct {
    struct fixture *f;
    char shadow[80];
    char nameless[80];
    uint64_t losses;
    long note; /* of the last flush that returned */
} power;

static void path_of(int fd, char out[256])
{
    char link[64];
    ssize_t n;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, out, 255);
    assert_true(n > 0);
    out[n] = '\0';
}

/* Opens what a power loss leaves behind: nothing that a reader has seen may be missing. */
static void lose_power(bool marks_written)
{
    struct fixture *f = power.f;
    struct fixture after = *f;
    struct file_sys hooks = file_sys;
    struct mark seen = visible(f);
    struct journal_writer *w;
    char command[512];
    char path[160];
    char *note;

    file_sys = real_sys;
    after.o.uri = after.uri;
    use_dir(&after, "after");
    snprintf(command, sizeof(command), "rm -rf %s && cp -r %s %s", after.dir, power.shadow,
             after.dir);
    assert_int_equal(system(command), 0);
    if (marks_written) {
        char live[160];

        durable_path(f, live);
        durable_path(&after, path);
        copy_file(live, path);
    }
    w = writer(&after, &note);
    assert_true(journal_next(w) >= seen.next);
    assert_true(!note || (uint64_t)atol(note + 1) <= journal_next(w));
    assert_true((note ? atol(note + 1) : 0) >= power.note);
    free(note);
    assert_int_equal(read_all(&after, 0), journal_next(w));
    journal_writer_close(w);
    file_sys = hooks;
    power.losses++;
}

static ssize_t watched_pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
    ssize_t done = pwritev(fd, iov, n, offset);

    lose_power(false);
    lose_power(true);
    return done;
}

/* A file that is new has its bytes on the disk now, and a name once the directory is synced. */
static int watched_fdatasync(int fd)
{
    char path[256];
    char to[400];

    lose_power(false);
    lose_power(true);
    path_of(fd, path);
    snprintf(to, sizeof(to), "%s%s", power.shadow, strrchr(path, '/'));
    if (access(to, F_OK) < 0)
        snprintf(to, sizeof(to), "%s%s", power.nameless, strrchr(path, '/'));
    copy_file(path, to);
    return 0;
}

static int watched_fsync(int fd)
{
    char command[512];

    lose_power(true);
    snprintf(command, sizeof(command), "find %s -type f -exec mv {} %s \\;", power.nameless,
             power.shadow);
    assert_int_equal(system(command), 0);
    return 0;
}

static void test_power_loss(void **state)
{
    struct fixture *f = *state;
    struct journal_writer *w = writer(f, NULL);
    char from[160];
    char to[160];

    power.f = f;
    power.losses = 0;
    power.note = 0;
    snprintf(power.shadow, sizeof(power.shadow), "%s/shadow", f->root);
    assert_int_equal(mkdir(power.shadow, 0700), 0);
    snprintf(power.nameless, sizeof(power.nameless), "%s/nameless", f->root);
    assert_int_equal(mkdir(power.nameless, 0700), 0);
    durable_path(f, from);
    snprintf(to, sizeof(to), "%s/durable", power.shadow);
    copy_file(from, to);
    file_sys.pwritev = watched_pwritev;
    file_sys.fdatasync = watched_fdatasync;
    file_sys.fsync = watched_fsync;
    for (unsigned i = 0; i < 9; i++) {
        char note[32];

        append(f, w, 5);
        snprintf(note, sizeof(note), "n%" PRIu64, journal_next(w));
        ok(f, journal_note(w, note, &f->e));
        ok(f, journal_flush(w, &f->e));
        power.note = atol(note + 1);
    }
    assert_true(power.losses > 80);
    file_sys = real_sys;
    journal_writer_close(w);
}

/* ---- torn tails ---- */

static void test_torn_behind_the_mark(void **state)
{
    struct fixture *f = *state;
    struct journal_writer *w;
    struct mark m;
    size_t len;
    char *data;
    char path[160];

    f->o.segment_bytes = 0;
    w = writer(f, NULL);
    append(f, w, 3);
    ok(f, journal_flush(w, &f->e));
    append(f, w, 12); /* reaches the file in blocks, not flushed */
    m = visible(f);
    segment_path(f, 0, path);
    data = slurp(path, &len);
    journal_writer_close(w);
    assert_true(len > m.offset + 200);
    for (size_t cut = m.offset; cut <= len; cut++) {
        spill(path, data, cut);
        w = writer(f, NULL);
        assert_int_equal(journal_next(w), 3);
        journal_writer_close(w);
        assert_int_equal(read_all(f, 0), 3);
    }
    /* Below the mark nothing may be missing. */
    for (size_t cut = 0; cut < m.offset; cut++) {
        char *note;

        spill(path, data, cut);
        assert_int_equal(journal_writer_open(&f->o, &w, &note, &f->e), -1);
        assert_int_equal(f->e.class, ERR_FATAL);
        assert_non_null(strstr(f->e.msg, path));
        assert_non_null(strstr(f->e.msg, "durable bytes are missing"));
        expect_damage(f, 0, "durable bytes are missing");
    }
    free(data);
}

/* Without the marks the whole blocks count: every length of the last segment. */
static void test_torn_without_marks(void **state)
{
    struct fixture *f = *state;
    struct journal_writer *w;
    char durable[160];
    char path[160];
    uint64_t next = 0;
    size_t ends[16];
    size_t nends = 0;
    size_t len;
    char *data;

    fill(f, 4); /* segment 0 */
    w = writer(f, NULL);
    ok(f, journal_note(w, "kept in the header", &f->e));
    ok(f, journal_flush(w, &f->e));
    for (unsigned i = 0; i < 5; i++) {
        append(f, w, 1);
        ok(f, journal_flush(w, &f->e));
        ends[nends++] = visible(f).offset;
    }
    journal_writer_close(w);
    segment_path(f, 4, path);
    durable_path(f, durable);
    data = slurp(path, &len);
    assert_int_equal(len, ends[nends - 1]);
    for (size_t cut = 0; cut <= len; cut++) {
        char *note;

        next = 4;
        for (size_t i = 0; i < nends; i++)
            next += cut >= ends[i];
        spill(path, data, cut);
        unlink(durable);
        w = writer(f, &note);
        assert_int_equal(journal_next(w), next);
        assert_int_equal(journal_writer_generation(w) > 1, 1);
        assert_true(next == 4 ? note == NULL || cut < len : note != NULL);
        if (note)
            assert_string_equal(note, "kept in the header");
        free(note);
        journal_writer_close(w);
        assert_int_equal(read_all(f, 0), next);
    }
    assert_int_equal(next, 9);
    free(data);
}

/* A note may speak of records that are still to come when a full segment ends: only the flushed one
 * goes into a header. */
static void test_note_without_marks(void **state)
{
    struct fixture *f = *state;
    struct journal_writer *w = writer(f, NULL);
    char path[160];
    char *note;

    append(f, w, 1);
    ok(f, journal_note(w, "flushed", &f->e));
    ok(f, journal_flush(w, &f->e));
    ok(f, journal_note(w, "ahead", &f->e));
    append(f, w, 60);
    assert_true(journal_durable(w) > 1); /* some segments ended */
    journal_writer_close(w);
    durable_path(f, path);
    assert_int_equal(unlink(path), 0);
    w = writer(f, &note);
    assert_non_null(note);
    assert_string_equal(note, "flushed");
    free(note);
    journal_writer_close(w);
}

static void test_one_mark_torn(void **state)
{
    struct fixture *f = *state;
    char path[160];
    size_t len;
    char *data;

    fill(f, 3);
    fill(f, 3);
    durable_path(f, path);
    data = slurp(path, &len);
    assert_int_equal(len, 4 * MARK_SLOT);
    for (size_t at = 0; at < len; at += 101) {
        struct journal_writer *w;

        data[at] ^= 0x20;
        spill(path, data, len);
        w = writer(f, NULL); /* the recovery mark or the visible one tells all */
        assert_int_equal(journal_next(w), 6);
        journal_writer_close(w);
        assert_int_equal(read_all(f, 0), 6);
        data[at] ^= 0x20;
    }
    free(data);
}

/* ---- kill -9 ---- */

#define KILLS 60u
#define KILLED_RECORDS 100000u
#define RECORDS_PER_KILL 1000u

struct killed {
    struct fixture *f;
    uint32_t *seen; /* by number: the generation that a reader saw it from */
    uint64_t count;
    uint32_t generation; /* of the last one seen */
    struct journal_reader *reader;
};

/* Writes and flushes until it is killed; each record is its generation and its number. */
static void write_until_killed(struct fixture *f, unsigned seed)
{
    struct journal_writer *w = writer(f, NULL);
    uint64_t end = journal_next(w) + RECORDS_PER_KILL;
    uint64_t number;
    uint32_t id;

    if (journal_schema(w, NAME, SCHEMA, &id, &f->e) < 0)
        _exit(1);
    while (journal_next(w) < end) {
        uint64_t datum_of[8] = {journal_writer_generation(w), journal_next(w)};
        size_t len = 16 + seed % 48;

        if (journal_append(w, id, datum_of, len, &number, &f->e) < 0)
            _exit(1);
        if (seed % 7 == 0 && journal_flush(w, &f->e) < 0)
            _exit(1);
        seed = seed * 1103515245u + 12345u;
        seed ^= seed >> 16;
    }
    for (;;)
        pause();
}

static void see(struct killed *k, struct journal_reader *r, int timeout_ms)
{
    struct journal_record record;
    int rc;

    while ((rc = journal_read(r, timeout_ms, &record, &k->f->e)) == 1) {
        uint64_t datum_of[2];

        assert_true(record.len >= sizeof(datum_of) && record.number < KILLED_RECORDS);
        memcpy(datum_of, record.data, sizeof(datum_of));
        assert_int_equal(datum_of[0], record.generation);
        assert_int_equal(datum_of[1], record.number);
        if (record.number < k->count)
            assert_int_equal(k->seen[record.number], record.generation);
        else
            assert_int_equal(record.number, k->count++);
        k->seen[record.number] = record.generation;
        k->generation = record.generation;
        timeout_ms = 0;
    }
    if (rc < 0)
        fail_msg("%s", k->f->e.msg);
}

static void kill_once(struct killed *k, unsigned round)
{
    uint32_t generation = k->generation;
    uint64_t before = k->count;
    int64_t deadline = mono_ms() + 20000;
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* also when an assertion ends the test early */
        write_until_killed(k->f, round * 2654435761u + 1);
    }
    while (!k->reader && journal_reader_open(&k->f->o, 0, &k->reader, &k->f->e) < 0)
        assert_true(k->f->e.class == ERR_RETRY && mono_ms() < deadline);
    /* Until something of this writer was seen, and then a little longer, by the round. */
    while (k->generation == generation || k->count <= before + round % 13 * 5) {
        see(k, k->reader, 100);
        assert_true(mono_ms() < deadline);
    }
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status));
}

/* What a reader saw from a writer that was killed stays what it is for every later reader. */
static void test_killed_while_read(void **state)
{
    struct killed k = {.f = *state, .seen = calloc(KILLED_RECORDS, sizeof(uint32_t))};
    struct journal_writer *w;
    struct journal_reader *again;

    for (unsigned round = 0; round < KILLS; round++)
        kill_once(&k, round);
    w = writer(k.f, NULL);
    assert_int_equal(journal_writer_generation(w), KILLS + 1);
    see(&k, k.reader, 0);
    assert_int_equal(k.count, journal_next(w));
    ok(k.f, journal_reader_open(&k.f->o, 0, &again, &k.f->e));
    see(&k, again, 0);
    assert_int_equal(k.count, journal_next(w));
    journal_reader_close(again);
    journal_reader_close(k.reader);
    journal_writer_close(w);
    free(k.seen);
}

/* ---- sizes ---- */

static void test_segment_sizes(void **state)
{
    struct fixture *f = *state;
    struct segment_list l;

    fill(f, 300);
    l = list(f);
    for (size_t i = 0; i < l.n; i++) {
        char path[160];
        struct stat st;

        segment_path(f, l.first[i], path);
        assert_int_equal(stat(path, &st), 0);
        assert_true(st.st_size <= 1024);
        assert_true(st.st_size > 700 || i + 1 == l.n);
    }
    segment_list_release(&l);
}

#define LARGE ((size_t)64 * 1024 * 1024)

static long peak_kib(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

static long resident_kib(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    long pages = -1;

    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*d %ld", &pages), 1);
    fclose(file);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* In a process of its own: 0 if a large record costs little more than itself. */
static int large_record_memory(struct fixture *f)
{
    struct journal_writer *w = writer(f, NULL);
    struct journal_record record;
    struct journal_reader *r;
    uint64_t number;
    uint32_t id;
    char *large = malloc(LARGE);
    long before;

    append(f, w, 1);
    memset(large, 'x', LARGE);
    before = peak_kib();
    if (journal_schema(w, NAME, SCHEMA, &id, &f->e) < 0 ||
        journal_append(w, id, large, LARGE, &number, &f->e) < 0 || journal_flush(w, &f->e) < 0)
        return 1;
    free(large);
    if (journal_reader_open(&f->o, 1, &r, &f->e) < 0)
        return 2;
    if (journal_read(r, 0, &record, &f->e) != 1 || record.len != LARGE)
        return 3;
    /* What it took is given back before the next wait. */
    if (journal_read(r, 0, &record, &f->e) != 0 || resident_kib() > (long)(LARGE / 1024 / 2))
        return 5;
    journal_reader_close(r);
    journal_writer_close(w);
    return peak_kib() - before > 8 * 1024 ? 4 : 0;
}

static void test_large_record_memory(void **state)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip();
#endif
    struct fixture *f = *state;
    pid_t child;
    int status = -1;

    f->o.segment_bytes = 0;
    f->o.block_bytes = 0;
    child = fork();
    if (child == 0)
        _exit(large_record_memory(f));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_every_call_fails),   TEST(test_disk_full),
        TEST(test_power_loss),         TEST(test_torn_behind_the_mark),
        TEST(test_torn_without_marks), TEST(test_note_without_marks),
        TEST(test_one_mark_torn),      TEST(test_killed_while_read),
        TEST(test_segment_sizes),      TEST(test_large_record_memory),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
