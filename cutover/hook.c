/* The on_switch hook: a child in a process group of its own, bounded in time, that dies with us. */
#include "cutover/internal.h"
#include "core/run.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define HOOK_MAX_MS 60000
#define HOOK_STOP_MS 10000 /* more, when we are asked to stop */
#define HOOK_POLL_MS 5
#define HOOK_FACTS 10

extern char **environ;

/* Our environment plus the facts, from the arena. */
static char **facts_env(struct cutover *c)
{
    size_t n = 0;
    size_t k = 0;
    const char *source = c->r->source ? c->r->source : "";
    const char *target = c->r->target ? c->r->target : "";
    const char *position = fact_text(c->body, "position");
    bool reads = c->r->stage != CUTOVER_STAGE_WRITES;
    /* Where what the stage speaks of is to go; reads may come back from the road's end. */
    bool back = c->r->back != (c->r->stage == CUTOVER_STAGE_READS_BACK);
    char **env;

    while (environ[n])
        n++;
    env = arena_alloc(&c->arena, (n + HOOK_FACTS + 1) * sizeof(*env));
    /* First, since the first of two equal names counts. */
    env[k++] = arena_printf(&c->arena, "LOCKSTEP_MIGRATION=%s", c->r->m->name);
    env[k++] = arena_printf(&c->arena, "LOCKSTEP_STAGE=%s", reads ? "reads" : "writes");
    env[k++] = arena_printf(&c->arena, "LOCKSTEP_DIRECTION=%s", back ? "back" : "forward");
    env[k++] = arena_printf(&c->arena, "LOCKSTEP_SOURCE=%s", source);
    env[k++] = arena_printf(&c->arena, "LOCKSTEP_TARGET=%s", target);
    env[k++] = arena_printf(&c->arena, "LOCKSTEP_FROM=%s", back ? target : source);
    env[k++] = arena_printf(&c->arena, "LOCKSTEP_TO=%s", back ? source : target);
    env[k++] = arena_printf(&c->arena, "LOCKSTEP_POSITION=%s", position ? position : "");
    env[k++] = arena_printf(&c->arena, "LOCKSTEP_EPOCH=%u", c->epoch);
    env[k++] = arena_printf(&c->arena, "LOCKSTEP_PAUSE_MS=%lld",
                            (long long)(reads ? 0 : fact_int(c->body, "pause_ms", 0)));
    for (size_t i = 0; i < n; i++)
        env[k++] = environ[i];
    env[k] = NULL;
    return env;
}

/* Between fork and exec only calls that a signal handler may make. */
static void child(const struct cutover *c, char **env, pid_t parent)
{
    int null = open("/dev/null", O_RDONLY);

    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    /* What the hook prints goes to stderr: stdout is for our result alone. */
    dup2(null, STDIN_FILENO);
    dup2(STDERR_FILENO, STDOUT_FILENO);
    signal(SIGPIPE, SIG_DFL);
    if (c->r->folder && chdir(c->r->folder) != 0)
        _exit(126);
    execle("/bin/sh", "sh", "-c", c->r->on_switch, (char *)NULL, env);
    _exit(127);
}

/* 1 ended, 0 it had to be ended, -1. */
static int await(pid_t pid, int *status, bool *stopped, struct err *e)
{
    int64_t until = mono_ms() + HOOK_MAX_MS;

    for (;;) {
        pid_t got = waitpid(pid, status, WNOHANG);

        if (got == pid)
            return 1;
        if (got < 0 && errno != EINTR)
            return err_set(e, ERR_FATAL, "waiting for the hook: %s", strerror(errno));
        if (!*stopped && stop_requested() && until > mono_ms() + HOOK_STOP_MS) {
            *stopped = true;
            until = mono_ms() + HOOK_STOP_MS;
        }
        if (mono_ms() >= until)
            break;
        nap_ms(HOOK_POLL_MS);
    }
    /* It may not have made its group yet. */
    kill(-pid, SIGKILL);
    kill(pid, SIGKILL);
    waitpid(pid, status, 0);
    return 0;
}

/* ---- can it be started? ---- */

/* The first word, if it is a path that no shell would change. False: what it starts only a shell
 * can tell. */
static bool plain_path(const char *command, char *out, size_t size)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "/._+,:@%-";
    size_t len;

    command += strspn(command, " \t\n");
    len = strspn(command, plain);
    if (len == 0 || len >= size || !memchr(command, '/', len) || !strchr(" \t\n", command[len]))
        return false;
    snprintf(out, size, "%.*s", (int)len, command);
    return true;
}

bool cutover_hook_starts(const char *command, const char *folder, char *why, size_t size)
{
    char word[1000];
    char path[2000];
    struct stat file;

    if (!plain_path(command, word, sizeof(word)))
        return true;
    snprintf(path, sizeof(path), "%s%s%s", word[0] != '/' && folder ? folder : "",
             word[0] != '/' && folder ? "/" : "", word);
    if (stat(path, &file) != 0)
        snprintf(why, size, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(file.st_mode))
        snprintf(why, size, "%s is no file", path);
    else if (access(path, X_OK) != 0)
        snprintf(why, size, "%s is not executable", path);
    else
        return true;
    return false;
}

/* ---- running it ---- */

int hook_run(struct cutover *c, char *failed, size_t size, struct err *e)
{
    char **env;
    pid_t parent = getpid();
    pid_t pid;
    bool stopped = false;
    int status = 0;
    int ended;

    failed[0] = '\0';
    if (!c->r->on_switch)
        return 0;
    env = facts_env(c);
    fflush(NULL);
    pid = fork();
    if (pid < 0)
        return err_set(e, ERR_FATAL, "starting the hook: %s", strerror(errno));
    if (pid == 0)
        child(c, env, parent);
    ended = await(pid, &status, &stopped, e);
    if (ended < 0)
        return -1;
    if (!ended && stopped)
        snprintf(failed, size, "lockstep was told to stop, and it did not end within %d s more",
                 HOOK_STOP_MS / 1000);
    else if (!ended)
        snprintf(failed, size, "it did not end in time (%d s) and was killed", HOOK_MAX_MS / 1000);
    else if (WIFSIGNALED(status))
        snprintf(failed, size, "it died of signal %d", WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0)
        snprintf(failed, size, "it exited with %d", WEXITSTATUS(status));
    return 0;
}
