/* lockstep.yaml: what it takes, and what each mistake is answered with. */
#include "config/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define THREE                                                                                      \
    "migration: shop\n"                                                                            \
    "source: postgresql://lockstep:secret@db1:5432/shop\n"                                         \
    "target: postgresql://lockstep@db2/shop\n"

#define URI "postgresql://user@host:port/database, or mysql://… or mariadb://… of that form"
#define KAFKA THREE "journal: kafka://b1:9092,b2:9093\n"

static char folder[] = "/tmp/lockstep_config_XXXXXX";
static char path[100];

static int load_bytes(const char *text, size_t len, struct config *c, struct err *e)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    fclose(f);
    err_clear(e);
    return config_load(path, c, e);
}

static int load(const char *text, struct config *c, struct err *e)
{
    return load_bytes(text, strlen(text), c, e);
}

/* The message behind the folder: "lockstep.yaml:7: …". */
static const char *message(const struct err *e)
{
    const char *m = strstr(e->msg, "lockstep.yaml");

    return m ? m : e->msg;
}

static void refused(const char *text, const char *expected)
{
    struct config c;
    struct err e;

    assert_int_equal(load(text, &c, &e), -1);
    assert_string_equal(message(&e), expected);
    assert_int_equal(e.class, ERR_CONFIG);
    assert_null(strstr(e.msg, "secret"));
}

static void test_defaults(void **state)
{
    struct config c;
    struct err e;

    assert_int_equal(load(THREE, &c, &e), 0);
    assert_string_equal(c.migration, "shop");
    assert_string_equal(c.source, "postgresql://lockstep:secret@db1:5432/shop");
    assert_int_equal(strncmp(c.journal, "file:/tmp/lockstep_config_", 26), 0);
    assert_non_null(strstr(c.journal, "/shop.journal"));
    assert_int_equal(c.include.n, 0);
    assert_int_equal(c.snapshot.workers, 4);
    assert_int_equal(c.snapshot.chunk_size, 64 << 20);
    assert_int_equal(c.snapshot.max_rate, 0);
    assert_int_equal(c.apply.batch, 4 << 20);
    assert_int_equal(c.apply.batch_delay_ms, 50);
    assert_int_equal(c.apply.on_error, ON_ERROR_PARK);
    assert_int_equal(c.cutover.max_pause_ms, 5000);
    assert_int_equal(c.cutover.lease_ms, 30000);
    assert_null(c.cutover.on_switch);
    assert_int_equal(c.memory, 64 << 20);
    assert_int_equal(c.journal_max, (uint64_t)50 << 30);
    assert_null(c.pg_bindir);
    assert_string_equal(c.listen, "127.0.0.1:8650");
    config_release(&c);
}

static void test_all_keys(void **state)
{
    struct config c;
    struct err e;

    assert_int_equal(load("migration: a_1\nsource: postgres://h/d\ntarget: 'postgresql://h2/d'\n"
                          "journal: file:/var/j\n"
                          "tables: {include: [public.*, \"s x.T?\"], exclude: [public.audit_*]}\n"
                          "snapshot: {workers: 1, chunk_size: 1MiB, max_rate: 20MiB}\n"
                          "apply:\n  batch: 512KiB\n  batch_delay: 2s\n  on_error: stop\n"
                          "cutover: {max_pause: 1m, lease: 10s, on_switch: ./switch.sh}\n"
                          "memory: 1GiB\njournal_max: 1GiB\npg_bindir: /usr/lib/postgresql/17/bin\n"
                          "listen: 0.0.0.0:1\n",
                          &c, &e),
                     0);
    assert_string_equal(c.journal, "file:/var/j");
    assert_int_equal(c.include.n, 2);
    assert_string_equal(c.include.v[1], "s x.T?");
    assert_string_equal(c.exclude.v[0], "public.audit_*");
    assert_int_equal(c.snapshot.workers, 1);
    assert_int_equal(c.snapshot.max_rate, 20 << 20);
    assert_int_equal(c.apply.batch, 512 << 10);
    assert_int_equal(c.apply.batch_delay_ms, 2000);
    assert_int_equal(c.apply.on_error, ON_ERROR_STOP);
    assert_int_equal(c.cutover.max_pause_ms, 60000);
    assert_string_equal(c.cutover.on_switch, "./switch.sh");
    config_release(&c);
}

static void test_variables(void **state)
{
    struct config c;
    struct err e;

    setenv("LOCKSTEP_T_PW", "p@ss/w:rd%", 1);
    setenv("LOCKSTEP_T_URI", "postgresql://u@h/d", 1);
    unsetenv("LOCKSTEP_T_NONE");
    assert_int_equal(load("migration: a\nsource: postgresql://u:${LOCKSTEP_T_PW}@h/d\n"
                          "target: ${LOCKSTEP_T_URI}\ncutover: {on_switch: \"x $${HOME} $$\"}\n",
                          &c, &e),
                     0);
    assert_string_equal(c.source, "postgresql://u:p%40ss%2Fw%3Ard%25@h/d");
    assert_string_equal(c.target, "postgresql://u@h/d");
    assert_string_equal(c.cutover.on_switch, "x ${HOME} $$");
    config_release(&c);
    refused("migration: a\nsource: postgresql://u:${LOCKSTEP_T_NONE}@h/d\n",
            "lockstep.yaml:2: source: the environment variable LOCKSTEP_T_NONE is not set");
    refused(THREE "memory: ${\n", "lockstep.yaml:4: memory: has a ${ that names no variable; "
                                  "expected ${NAME}, or $${ for the two characters");
    setenv("LOCKSTEP_T_PW", "secret", 1);
    refused(THREE "memory: ${LOCKSTEP_T_PW}\n",
            "lockstep.yaml:4: memory: \"${LOCKSTEP_T_PW}\" holds a text that does not fit here; "
            "expected a number with KiB, MiB, GiB, at least 64MiB, at most 1024GiB");
}

static void test_other_engines(void **state)
{
    struct config c;
    struct err e;

    assert_int_equal(load("migration: a\nsource: mariadb://u:x@h:3307/shop\n"
                          "target: mysql://u@h2/d?ssl=1\n"
                          "schemas: {shop: d, audit: log}\n"
                          "fence:\n  whole_server: true\n  accounts: ['app@%', web@10.0.0.1]\n",
                          &c, &e),
                     0);
    assert_string_equal(c.source, "mariadb://u:x@h:3307/shop");
    assert_string_equal(c.target, "mysql://u@h2/d?ssl=1");
    assert_int_equal(c.schemas.n, 2);
    assert_int_equal(c.schemas.line, 4);
    assert_string_equal(c.schemas.names[1], "audit");
    assert_string_equal(c.schemas.values[1], "log");
    assert_true(c.fence.whole_server);
    assert_int_equal(c.fence.accounts.n, 2);
    assert_string_equal(c.fence.accounts.v[0], "app@%");
    assert_string_equal(c.fence.accounts.v[1], "web@10.0.0.1");
    config_release(&c);
    assert_int_equal(load(THREE, &c, &e), 0);
    assert_false(c.fence.whole_server);
    assert_int_equal(c.schemas.n, 0);
    config_release(&c);
    refused("migration: a\nsource: mysql://u:secret@h/\n",
            "lockstep.yaml:2: source: this value names no database; expected " URI);
    refused("migration: a\nsource: oracle://u:secret@h/d\n",
            "lockstep.yaml:2: source: this value is not the URI of a database; expected " URI);
    refused(THREE "schemas: {public: shop, app: shop}\n",
            "lockstep.yaml:4: schemas.app: becomes the schema that public becomes, too; expected "
            "one of its own");
    refused(THREE "schemas:\n  a: b\n  a: c\n",
            "lockstep.yaml:6: schemas.a: is there twice; expected it once");
    refused(THREE "schemas: {public: }\n",
            "lockstep.yaml:4: schemas.public: is empty; expected the name of a schema");
    refused(THREE "schemas: shop\n",
            "lockstep.yaml:4: schemas: is one text; expected pairs of names, like {public: shop}");
    refused(THREE "fence: {whole_server: yes}\n",
            "lockstep.yaml:4: fence.whole_server: \"yes\" is neither; expected true or false");
    refused(THREE "fence: {accounts: [app]}\n",
            "lockstep.yaml:4: fence.accounts: \"app\" is not an account; expected a list of "
            "user@host accounts, like [app@%]");
}

static void test_kafka(void **state)
{
    struct config c;
    struct err e;

    setenv("LOCKSTEP_T_PW", "p@ss", 1);
    assert_int_equal(load(KAFKA "schema_registry: https://u:${LOCKSTEP_T_PW}@r:8081/x\n"
                                "kafka:\n  security.protocol: SASL_SSL\n"
                                "  sasl.password: ${LOCKSTEP_T_PW}\n  linger.ms: 5\n",
                          &c, &e),
                     0);
    assert_string_equal(c.journal, "kafka://b1:9092,b2:9093");
    assert_string_equal(c.schema_registry, "https://u:p%40ss@r:8081/x");
    assert_int_equal(c.kafka.n, 3);
    assert_string_equal(c.kafka.names[1], "sasl.password");
    assert_string_equal(c.kafka.values[1], "p@ss");
    assert_string_equal(c.kafka.values[2], "5");
    config_release(&c);
    unsetenv("LOCKSTEP_T_NONE");
    refused(KAFKA "kafka:\n  sasl.password: ${LOCKSTEP_T_NONE}\n",
            "lockstep.yaml:6: kafka.sasl.password: the environment variable LOCKSTEP_T_NONE is "
            "not set");
    refused(KAFKA "kafka: {sasl.password: \"secret\\n\"}\n",
            "lockstep.yaml:5: kafka.sasl.password: has control characters; expected a text "
            "without");
    refused(KAFKA "kafka: {sasl.password: [secret]}\n",
            "lockstep.yaml:5: kafka.sasl.password: is a list; expected a text");
    refused(KAFKA "kafka: [secret]\n",
            "lockstep.yaml:5: kafka: is a list; expected properties, like {security.protocol: "
            "SSL}");
    refused(KAFKA "schema_registry: ftp://u:secret@h\n",
            "lockstep.yaml:5: schema_registry: this value is not the URL of a registry; expected "
            "http://host:port or https://host:port");
    refused(THREE "kafka: {a: secret}\n",
            "lockstep.yaml:4: kafka: belongs to a journal in Kafka; expected journal: "
            "kafka://host:port,host:port beside it, or this key left out");
    refused(THREE "schema_registry: http://r:1\n",
            "lockstep.yaml:4: schema_registry: belongs to a journal in Kafka; expected journal: "
            "kafka://host:port,host:port beside it, or this key left out");
}

static void test_kafka_brokers(void **state)
{
    static const char *const wrong[] = {
        "kafka://b1", "kafka://b1:9092,", "kafka://b1:99999", "kafka://b1:9/t",
        "kafka://",   "kafka:b1:9092",    "kafka://u@b:9092", "kafka://b1:9092,,b2:9092"};

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct config c;
        struct err e;
        char text[400];

        snprintf(text, sizeof(text), THREE "journal: %s\n", wrong[i]);
        assert_int_equal(load(text, &c, &e), -1);
        assert_int_equal(e.class, ERR_CONFIG);
        assert_non_null(strstr(e.msg, "lockstep.yaml:4: journal: "));
        assert_non_null(strstr(e.msg, "or kafka://host:port,host:port"));
    }
}

static void test_mistakes(void **state)
{
    refused(THREE "snapshot:\n  workers: 2\n\n  chunk_size: 64MB\n",
            "lockstep.yaml:7: snapshot.chunk_size: \"64MB\" is not a size; expected a number with "
            "KiB, MiB, GiB, at least 1MiB, at most 64GiB");
    refused(THREE "snapshot: {chunk_size: 1KiB}\n",
            "lockstep.yaml:4: snapshot.chunk_size: \"1KiB\" is too small; expected a number with "
            "KiB, MiB, GiB, at least 1MiB, at most 64GiB");
    refused(THREE "snapshot: {workers: many}\n",
            "lockstep.yaml:4: snapshot.workers: \"many\" is not a number; expected a number from "
            "1 to 64");
    refused(THREE "apply: {batch_delay: 5}\n",
            "lockstep.yaml:4: apply.batch_delay: \"5\" is not a duration; expected a number with "
            "ms, s or m, or 0, at most 1m");
    refused(THREE "apply: {on_error: ignore}\n",
            "lockstep.yaml:4: apply.on_error: \"ignore\" is not known; expected park or stop");
    refused(THREE "listen: nowhere\n", "lockstep.yaml:4: listen: \"nowhere\" is not an address; "
                                       "expected host:port, like 127.0.0.1:8650");
    refused(THREE "journal_max:\n", "lockstep.yaml:4: journal_max: \"\" is empty; expected a "
                                    "number with KiB, MiB, GiB, at least 64MiB, at most "
                                    "1048576GiB");
    refused("migration: Shop\n", "lockstep.yaml:1: migration: \"Shop\" is not a name for a "
                                 "migration; expected a small letter, then at most 30 of a-z, 0-9 "
                                 "and _");
    refused("migration: a\nsource: secret\n",
            "lockstep.yaml:2: source: this value is not the URI of a database; expected " URI);
    refused(THREE "tables: {include: [orders]}\n",
            "lockstep.yaml:4: tables.include: \"orders\" is not a pattern; expected a list of "
            "schema.name patterns, like [public.*]");
}

static void test_keys(void **state)
{
    refused("# c\nmigration: a\nsorce: x\n",
            "lockstep.yaml:3: sorce: is not a key; did you mean source?");
    refused(THREE "snapshot: {chunksize: 1MiB}\n",
            "lockstep.yaml:4: snapshot.chunksize: is not a key; did you mean snapshot.chunk_size?");
    refused(THREE "workers: 3\n",
            "lockstep.yaml:4: workers: is not a key; did you mean snapshot.workers?");
    refused(THREE "colour: blue\n",
            "lockstep.yaml:4: colour: is not a key; docs/configuration.md lists them");
    refused(THREE "snapshot.workers: 3\n", "lockstep.yaml:4: snapshot.workers: is written as one "
                                           "key; expected workers below snapshot:");
    refused(THREE "memory: 64MiB\nmemory: 65MiB\n",
            "lockstep.yaml:5: memory: is there twice; expected it once");
    refused(THREE "apply: {batch: 4MiB}\napply: {batch_delay: 5s}\n",
            "lockstep.yaml:5: apply: is there twice; expected it once");
    refused("migration: a\ntarget: postgresql://h/d\n",
            "lockstep.yaml:1: source: is missing; expected " URI);
}

static void test_shapes(void **state)
{
    refused("migration: [a]\n", "lockstep.yaml:1: migration: is a list; expected a small letter, "
                                "then at most 30 of a-z, 0-9 and _");
    refused(THREE "tables: {include: public.*}\n",
            "lockstep.yaml:4: tables.include: is one text; expected a list of "
            "schema.name patterns, like [public.*]");
    refused(THREE "tables:\n  - public.*\n",
            "lockstep.yaml:4: tables: is a list; expected a group of keys");
    refused("- a\n",
            "lockstep.yaml:1: is no group of keys; expected migration:, source: and target:");
    refused(THREE "snapshot:\n\tworkers: 4\n",
            "lockstep.yaml:5: a tab, or another character that YAML does not take here; expected "
            "blanks, while scanning for the next token");
    refused(THREE "---\nmigration: b\n", "lockstep.yaml:5: a second document begins; expected one");
    refused("", "lockstep.yaml:1: is empty; expected at least migration, source and target "
                "(lockstep init SOURCE TARGET writes a file)");
    refused("migration: a\nsource: \xff\n", "lockstep.yaml:2: is not UTF-8 text (byte 0xff)");
}

static void test_later(void **state)
{
    refused(THREE "apply: {on_error: quarantine}\n",
            "lockstep.yaml:4: apply.on_error: quarantine is not supported by this version, which "
            "takes park or stop");
    refused(THREE "tables:\n  rules:\n    - {match: public.orders}\n",
            "lockstep.yaml:5: tables.rules: is not supported yet: this version takes "
            "tables.include and tables.exclude; leave the rules out");
}

static void test_files(void **state)
{
    struct config c;
    struct err e;
    char *huge = malloc(2 << 20);

    assert_int_equal(config_load("/nowhere/lockstep.yaml", &c, &e), -1);
    assert_string_equal(e.msg, "/nowhere/lockstep.yaml: No such file or directory");
    memset(huge, '#', 2 << 20);
    assert_int_equal(load_bytes(huge, 2 << 20, &c, &e), -1);
    assert_string_equal(message(&e),
                        "lockstep.yaml: is larger than 1MiB; expected a configuration");
    free(huge);
}

static void test_redact(void **state)
{
    static const char *const cases[][2] = {
        {"postgresql://u:secret@h:5432/d", "postgresql://u@h:5432/d"},
        {"postgresql://u@h/d", "postgresql://u@h/d"},
        {"postgresql://h/d", "postgresql://h/d"},
        {"postgresql://u:secr@t/x?y@h/d", "postgresql://u@h/d"},
        {"postgresql:///d?host=/run&password=secret&port=5433",
         "postgresql:///d?host=/run&port=5433"},
        {"postgresql://h/d?p%61ssword=secret&sslmode=require", "postgresql://h/d"},
        {"postgresql://h/d?password=secr@t", "postgresql://h/d"},
        {"postgresql://u@h:5432/d?sslmode=require&password=secr@t&port=5433",
         "postgresql://u@h:5432/d?port=5433"},
        {"postgresql://u:se@ret@h/d?p%61ssword=secr@t", "postgresql://u@h/d"},
        {"host=x password=secret", "a database"},
    };
    struct arena a = ARENA_INIT;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_string_equal(config_uri_redact(&a, cases[i][0]), cases[i][1]);
    arena_release(&a);
}

static void test_override(void **state)
{
    struct config c;
    struct err e;

    assert_int_equal(load(THREE, &c, &e), 0);
    assert_int_equal(config_override(&c, "cutover.max_pause", "250ms", &e), 0);
    assert_int_equal(c.cutover.max_pause_ms, 250);
    assert_int_equal(config_override(&c, "cutover.max_pause", "soon", &e), -1);
    assert_string_equal(e.msg, "\"soon\" is not a duration; expected a number with ms, s or m, at "
                               "least 100ms, at most 60m");
    config_release(&c);
}

static void count_line(const char *line, void *ctx)
{
    *(int *)ctx += strncmp(line, "| `", 3) == 0;
}

static void test_reference(void **state)
{
    int keys = 0;

    config_print_reference(count_line, &keys);
    assert_int_equal(keys, 25);
}

static int setup(void **state)
{
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof(path), "%s/lockstep.yaml", folder);
    return 0;
}

static int teardown(void **state)
{
    unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),  cmocka_unit_test(test_all_keys),
        cmocka_unit_test(test_variables), cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_keys),      cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_later),     cmocka_unit_test(test_files),
        cmocka_unit_test(test_redact),    cmocka_unit_test(test_reference),
        cmocka_unit_test(test_override),  cmocka_unit_test(test_other_engines),
        cmocka_unit_test(test_kafka),     cmocka_unit_test(test_kafka_brokers),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
