/* simulation --runs N --seed S [--minutes M] [--state FILE] [--keep-going]
 *            [--until-rows] [--without LIST] [--verbose]
 *
 * Runs the seeds S … S+N-1. Exit 0: no finding; 3: a finding, printed with its seed; 2: usage.
 * --without late,lost,crash,unknown,restart,truncate,second,user,switch leaves
 *            trouble out, to find a cause.
 * --until-rows stops at the first run that ends with wrong rows (for plants).
 * With --state, the seed to go on from is kept in FILE, so that a long range can be resumed. */
#include "tests/simulation/sim.h"

#include "core/log.h"

#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct options {
    uint64_t runs;
    uint64_t seed;
    double minutes;
    const char *state;
    bool keep_going;
    bool until_rows;
    struct sim_settings settings;
};

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int usage(void)
{
    fprintf(stderr, "usage: simulation --runs N --seed S [--minutes M] [--state FILE]"
                    " [--keep-going] [--until-rows] [--without LIST] [--verbose]\n");
    return 2;
}

static int parse(int argc, char **argv, struct options *o)
{
    static const struct option options[] = {
        {"runs", required_argument, NULL, 'r'},
        {"seed", required_argument, NULL, 's'},
        {"minutes", required_argument, NULL, 'm'},
        {"state", required_argument, NULL, 'f'},
        {"keep-going", no_argument, NULL, 'k'},
        {"until-rows", no_argument, NULL, 'u'},
        {"without", required_argument, NULL, 'w'},
        {"verbose", no_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'r')
            o->runs = strtoull(optarg, NULL, 10);
        else if (c == 's')
            o->seed = strtoull(optarg, NULL, 10);
        else if (c == 'm')
            o->minutes = strtod(optarg, NULL);
        else if (c == 'f')
            o->state = optarg;
        else if (c == 'k')
            o->keep_going = true;
        else if (c == 'u')
            o->until_rows = true;
        else if (c == 'v')
            o->settings.verbose = true;
        else if (c == 'w')
            o->settings.without = optarg;
        else
            return -1;
    }
    return optind == argc && o->runs > 0 ? 0 : -1;
}

/* The next seed of a range that was begun before. */
static uint64_t resume(const struct options *o)
{
    FILE *f = o->state ? fopen(o->state, "r") : NULL;
    uint64_t first = 0;
    uint64_t next = 0;
    int n;

    if (!f)
        return o->seed;
    n = fscanf(f, "%" SCNu64 " %" SCNu64, &first, &next);
    fclose(f);
    return n == 2 && first == o->seed && next > o->seed ? next : o->seed;
}

static void keep(const struct options *o, uint64_t next)
{
    char part[4096];
    FILE *f;

    if (!o->state)
        return;
    snprintf(part, sizeof(part), "%s.part", o->state);
    f = fopen(part, "w");
    if (!f)
        return;
    fprintf(f, "%" PRIu64 " %" PRIu64 "\n", o->seed, next);
    if (fclose(f) == 0)
        rename(part, o->state);
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"equal", "rows", "stopped", "stuck", "switch"};
    struct options o = {.runs = 0, .seed = 1};
    uint64_t counts[VERDICTS] = {0};
    double start = seconds();
    uint64_t runs = 0;
    uint64_t seed;

    if (parse(argc, argv, &o) < 0)
        return usage();
    /* Arenas come and go all the time: their memory is not given back in between. */
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
    mallopt(M_MMAP_THRESHOLD, 256 << 20);
    mallopt(M_TOP_PAD, 4 << 20);
    log_set_level(o.settings.verbose ? LOG_DEBUG : LOG_ERROR + 1);
    for (seed = resume(&o); seed < o.seed + o.runs; seed++) {
        enum sim_verdict v = sim_run(seed, &o.settings);

        counts[v]++;
        if (v != VERDICT_EQUAL) {
            fprintf(stderr, "replay: simulation --runs 1 --seed %" PRIu64 " --verbose\n", seed);
            if (!o.keep_going && (!o.until_rows || v == VERDICT_ROWS))
                break;
        }
        if (seed % 100 == 0)
            keep(&o, seed + 1);
        if (o.minutes > 0 && seconds() - start > o.minutes * 60)
            break;
    }
    keep(&o, seed);
    for (int i = 0; i < VERDICTS; i++)
        printf("%s %" PRIu64 "  ", names[i], counts[i]);
    for (int i = 0; i < VERDICTS; i++)
        runs += counts[i];
    printf("in %.1f s, next seed %" PRIu64 "\n", seconds() - start, seed);
    return counts[VERDICT_EQUAL] == runs ? 0 : 3;
}
