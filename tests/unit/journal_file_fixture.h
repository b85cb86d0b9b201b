/* What the tests of the file journal share: a journal in a directory of its own, records that are
 * recognised by their number, and its files as bytes. */
#ifndef LOCKSTEP_TESTS_UNIT_JOURNAL_FILE_FIXTURE_H
#define LOCKSTEP_TESTS_UNIT_JOURNAL_FILE_FIXTURE_H

#include "core/log.h"
#include "core/run.h"
#include "journal/file_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define NAME "lockstep.t.A"
#define SCHEMA                                                                                     \
    "{\"type\":\"record\",\"name\":\"lockstep.t.A\",\"fields\":[{\"name\":\"v\",\"type\":"         \
    "\"string\"}]}"

struct fixture {
    char root[64];
    char dir[80];
    char uri[96];
    struct journal_options o;
    struct err e;
};

#define ok(f, call)                                                                                \
    do {                                                                                           \
        if ((call) < 0)                                                                            \
            fail_msg("%s: %s", #call, (f)->e.msg);                                                 \
    } while (0)

static inline int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static inline void remove_tree(const char *path)
{
    nftw(path, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static inline void use_dir(struct fixture *f, const char *name)
{
    snprintf(f->dir, sizeof(f->dir), "%s/%s", f->root, name);
    snprintf(f->uri, sizeof(f->uri), "file:%s", f->dir);
}

static inline int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    snprintf(f->root, sizeof(f->root), "/tmp/lockstep-file-XXXXXX");
    assert_non_null(mkdtemp(f->root));
    use_dir(f, "j");
    f->o = (struct journal_options){.uri = f->uri, .segment_bytes = 1024, .block_bytes = 256};
    *state = f;
    return 0;
}

static const struct file_sys real_sys = {
    .pwritev = pwritev, .fdatasync = fdatasync, .fsync = fsync};

static inline int teardown(void **state)
{
    struct fixture *f = *state;

    file_sys = real_sys;
    remove_tree(f->root);
    free(f);
    return 0;
}

static inline int datum(uint64_t n, char out[80])
{
    return snprintf(out, 80, "record %" PRIu64 " %.*s", n, (int)(n % 40),
                    "..........................................");
}

static inline struct journal_writer *writer(struct fixture *f, char **note)
{
    struct journal_writer *w;
    char *got;

    ok(f, journal_writer_open(&f->o, &w, &got, &f->e));
    if (note)
        *note = got;
    else
        free(got);
    return w;
}

static inline int append_one(struct journal_writer *w, struct err *e)
{
    char text[80];
    int len = datum(journal_next(w), text);
    uint64_t number;
    uint32_t id;

    if (journal_schema(w, NAME, SCHEMA, &id, e) < 0)
        return -1;
    return journal_append(w, id, text, (size_t)len, &number, e);
}

static inline void append(struct fixture *f, struct journal_writer *w, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        ok(f, append_one(w, &f->e));
}

static inline void fill(struct fixture *f, unsigned count)
{
    struct journal_writer *w = writer(f, NULL);

    append(f, w, count);
    ok(f, journal_flush(w, &f->e));
    journal_writer_close(w);
}

/* Reads to the end; the number behind the last record, or UINT64_MAX and f->e. */
static inline uint64_t read_all(struct fixture *f, uint64_t from)
{
    struct journal_reader *r;
    struct journal_record record;
    int rc;

    if (journal_reader_open(&f->o, from, &r, &f->e) < 0)
        return UINT64_MAX;
    while ((rc = journal_read(r, 0, &record, &f->e)) == 1) {
        char text[80];
        int len = datum(from, text);

        assert_int_equal(record.number, from);
        assert_int_equal(record.len, len);
        assert_memory_equal(record.data, text, (size_t)len);
        from++;
    }
    journal_reader_close(r);
    return rc < 0 ? UINT64_MAX : from;
}

static inline void expect_damage(struct fixture *f, uint64_t from, const char *says)
{
    assert_true(read_all(f, from) == UINT64_MAX);
    assert_int_equal(f->e.class, ERR_FATAL);
    if (!strstr(f->e.msg, says))
        fail_msg("\"%s\" does not say \"%s\"", f->e.msg, says);
}

/* ---- files ---- */

static inline char *slurp(const char *path, size_t *len)
{
    FILE *file = fopen(path, "rb");
    char *data = malloc(1 << 20);

    assert_non_null(file);
    *len = fread(data, 1, 1 << 20, file);
    fclose(file);
    return data;
}

static inline void spill(const char *path, const char *data, size_t len)
{
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len, file), len);
    fclose(file);
}

static inline void copy_file(const char *from, const char *to)
{
    size_t len;
    char *data = slurp(from, &len);

    spill(to, data, len);
    free(data);
}

static inline void segment_path(const struct fixture *f, uint64_t first, char out[160])
{
    char name[SEGMENT_NAME_SIZE];

    segment_name(first, name);
    snprintf(out, 160, "%s/%s", f->dir, name);
}

static inline void durable_path(const struct fixture *f, char out[160])
{
    snprintf(out, 160, "%s/durable", f->dir);
}

static inline struct segment_list list(struct fixture *f)
{
    struct segment_list l;
    struct file_dir d;

    assert_int_equal(file_dir_open(&f->o, &d, &f->e), 1);
    ok(f, segment_list_read(&d, &l, &f->e));
    file_dir_close(&d);
    return l;
}

static inline struct mark visible(struct fixture *f)
{
    struct file_dir d;
    struct mark m;

    assert_int_equal(file_dir_open(&f->o, &d, &f->e), 1);
    assert_int_equal(mark_read(&d, MARK_VISIBLE, &m, &f->e), 1);
    file_dir_close(&d);
    return m;
}

#endif
