/* Children: their output, their failures, and that none outlives us. */
#include "core/run.h"
#include "engines/postgres/tools.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static int shell(const char *script, int timeout_ms, const char *password, struct buf *out,
                 struct err *e)
{
    const char *argv[] = {"/bin/sh", "-c", script, NULL};
    struct tool_run r = {
        .argv = argv, .password = password, .timeout_ms = timeout_ms, .output = out};

    return tool_run(&r, e);
}

static void output_and_password_travel(void **state)
{
    struct buf out;
    struct err e = {0};

    buf_init(&out, TOOL_OUTPUT_MAX);
    assert_int_equal(shell("echo out; echo \"$PGPASSWORD\" >&2", 5000, "s3cret", &out, &e), 0);
    assert_string_equal(out.data, "out\ns3cret\n");
    buf_reset(&out, 0);
    assert_int_equal(shell("echo this is why; exit 3", 5000, NULL, &out, &e), -1);
    assert_int_equal(e.class, ERR_FATAL);
    assert_non_null(strstr(e.msg, "exit code 3): this is why"));
    /* More output than is kept does not stop the child. */
    buf_reset(&out, 0);
    assert_int_equal(shell("yes | head -c 1000000", 5000, NULL, &out, &e), 0);
    assert_true(out.len <= TOOL_OUTPUT_MAX);
    buf_release(&out);

    const char *argv[] = {"/no/such/program", NULL};
    struct tool_run r = {.argv = argv, .timeout_ms = 1000};
    assert_int_equal(tool_run(&r, &e), -1);
    assert_non_null(strstr(e.msg, "cannot be run"));
}

static void a_silent_child_is_killed(void **state)
{
    struct err e = {0};
    int64_t began = mono_ms();

    assert_int_equal(shell("trap '' TERM; while :; do sleep 1; done", 200, NULL, NULL, &e), -1);
    assert_int_equal(e.class, ERR_RETRY);
    assert_true(mono_ms() - began < 30000);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* reaped */
}

/* The one that called dies by SIGKILL: the kernel ends its child. */
static void a_child_dies_with_its_parent(void **state)
{
    int fds[2];
    pid_t grandchild = 0;

    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        char script[100];

        snprintf(script, sizeof script, "echo $$ >/proc/%d/fd/%d; exec sleep 600", (int)getpid(),
                 fds[1]);
        shell(script, 600000, NULL, NULL, NULL);
        _exit(1);
    }
    char text[32] = "";
    assert_true(read(fds[0], text, sizeof text - 1) > 0);
    grandchild = atoi(text);
    assert_int_equal(kill(grandchild, 0), 0);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    int64_t until = mono_ms() + 5000;
    /* An orphan that nobody reaps yet is a zombie: dead all the same. */
    char path[64];
    char status = 'S';
    snprintf(path, sizeof path, "/proc/%d/stat", (int)grandchild);
    while (status != 'Z' && mono_ms() < until) {
        FILE *f = fopen(path, "r");

        if (f == NULL || fscanf(f, "%*d %*s %c", &status) != 1)
            status = 'Z';
        if (f != NULL)
            fclose(f);
    }
    assert_int_equal(status, 'Z');
}

static void program(const char *dir, const char *name, const char *version)
{
    char path[200];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    fprintf(f, "#!/bin/sh\necho '%s (PostgreSQL) %s'\n", name, version);
    fclose(f);
    chmod(path, 0755);
}

static void programs_are_found_and_old_ones_refused(void **state)
{
    char dir[] = "/tmp/lockstep-tools-test.XXXXXX";
    struct arena a = ARENA_INIT;
    struct err e = {0};
    const char *found;
    char command[200];

    assert_non_null(mkdtemp(dir));
    assert_int_equal(tool_find(dir, 150000, &a, &found, &e), -1);
    assert_int_equal(e.class, ERR_REFUSED);
    assert_non_null(strstr(e.msg, "not found"));
    program(dir, "pg_dump", "16.2 (Debian 16.2-1)");
    program(dir, "pg_restore", "14.9");
    assert_int_equal(tool_find(dir, 150004, &a, &found, &e), -1);
    assert_non_null(strstr(e.msg, "version 14, older than the source's 15"));
    assert_non_null(strstr(e.hint, "postgresql-client-15"));
    program(dir, "pg_restore", "17devel");
    assert_int_equal(tool_find(dir, 150004, &a, &found, &e), 0);
    assert_string_equal(found, dir);
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
    arena_release(&a);
}

static void no_password_stands_on_a_command_line(void **state)
{
    struct arena a = ARENA_INIT;
    struct err e = {0};
    const char *conninfo;
    const char *password;

    assert_int_equal(tool_conninfo("postgresql://u%27s:p%40ss@h:5433/d%5Cb?application_name=x",
                                   "lockstep:shop:schema", &a, &conninfo, &password, &e),
                     0);
    assert_string_equal(password, "p@ss");
    assert_null(strstr(conninfo, "p@ss"));
    assert_non_null(strstr(conninfo, "user='u\\'s'"));
    assert_non_null(strstr(conninfo, "dbname='d\\\\b'"));
    assert_non_null(strstr(conninfo, "application_name='lockstep:shop:schema'"));
    arena_release(&a);
}

/* Last: the request to stop is not taken back. */
static void a_stop_request_kills_it(void **state)
{
    struct err e = {0};
    int64_t began = mono_ms();

    stop_request();
    assert_int_equal(shell("sleep 600", 600000, NULL, NULL, &e), -1);
    assert_int_equal(e.class, ERR_STOPPED);
    assert_true(mono_ms() - began < 30000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(output_and_password_travel),
        cmocka_unit_test(a_silent_child_is_killed),
        cmocka_unit_test(a_child_dies_with_its_parent),
        cmocka_unit_test(programs_are_found_and_old_ones_refused),
        cmocka_unit_test(no_password_stands_on_a_command_line),
        cmocka_unit_test(a_stop_request_kills_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
