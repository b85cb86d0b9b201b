/* binlog_sql.c: what sort of statement, and which tables it names. */
#include "engines/mysql/binlog_sql.h"

#include "core/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void test_kinds(void **state)
{
    static const struct {
        const char *sql;
        enum sql_kind kind;
    } cases[] = {
        {"BEGIN", SQL_BEGIN},
        {"COMMIT", SQL_COMMIT},
        {"ROLLBACK", SQL_ROLLBACK},
        {"ROLLBACK TO `s`", SQL_ROLLBACK_TO},
        {"SAVEPOINT `s`", SQL_SAVEPOINT},
        {"XA START X'61',X'',1", SQL_XA_START},
        {"XA COMMIT X'61',X'',1", SQL_XA_DECIDE},
        {"/* why */ insert into t values (1)", SQL_DML},
        {"# line\nLOAD DATA INFILE 'x' INTO TABLE t", SQL_DML},
        {"TRUNCATE t", SQL_TRUNCATE},
        {"alter online table t add c int", SQL_DDL},
        {"DROP /*!40005 TEMPORARY */ TABLE IF EXISTS `t`", SQL_OTHER},
        {"CREATE TEMPORARY TABLE t (a INT)", SQL_OTHER},
        {"CREATE OR REPLACE TABLE t (a INT)", SQL_DDL},
        {"CREATE VIEW v AS SELECT * FROM t", SQL_OTHER},
        {"CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET @a = 1", SQL_OTHER},
        {"GRANT ALL ON t TO u", SQL_OTHER},
        {"CREATE UNIQUE INDEX i ON t (a)", SQL_DDL},
        {"SET STATEMENT lock_wait_timeout=1 FOR TRUNCATE TABLE orders", SQL_TRUNCATE},
        {"set /* a */ statement a='for', b=`for` For Alter TABLE t ADD c INT", SQL_DDL},
        {"SET STATEMENT a=(SELECT b FROM c FOR UPDATE), d=1 FOR INSERT INTO t VALUES (1)", SQL_DML},
        {"SET STATEMENT a=1 FOR SET STATEMENT b=2 FOR DROP TABLE t", SQL_DDL},
        {"SET STATEMENT a=1 FOR GRANT ALL ON t TO u", SQL_OTHER},
        {"SET STATEMENT a=1 TRUNCATE TABLE t", SQL_UNREAD},
        {"SET STATEMENT a=1 FOR", SQL_UNREAD},
        {"SET STATEMENT a=(1 FOR TRUNCATE TABLE t", SQL_UNREAD},
        {"SET PASSWORD FOR 'u'@'%' = 'x'", SQL_OTHER},
        {"", SQL_OTHER},
        {"/* open", SQL_OTHER},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (sql_kind_of(cases[i].sql, strlen(cases[i].sql)) != cases[i].kind)
            fail_msg("%s", cases[i].sql);
    }
    assert_true(sql_leaves_open("CREATE TABLE a (b INT) START TRANSACTION", 40));
    assert_false(sql_leaves_open("CREATE TABLE a (b INT)", 22));
}

static void take(void *arg, const struct sql_name *name)
{
    buf_addf(arg, "%s.%s ", name->schema, name->table);
}

static void test_names(void **state)
{
    static const char *const cases[][2] = {
        {"TRUNCATE TABLE `a`.`b`", "a.b "},
        {"truncate t", "d.t "},
        {"DROP TABLE IF EXISTS `x``y`, z.w /* generated */", "d.x`y z.w "},
        {"RENAME TABLE a TO b, c.d TO e", "d.a d.b c.d d.e "},
        {"ALTER TABLE `a`.`b` AUTO_INCREMENT = 2406", ""},
        {"ALTER TABLE a AUTO_INCREMENT=3 /* and */ , ADD c INT", "d.a "},
        {"ALTER TABLE a ADD COLUMN orders INT DEFAULT 'table x'", "d.a "},
        {"ALTER TABLE a RENAME TO b", "d.a d.b "},
        {"ALTER TABLE a RENAME COLUMN b TO c", "d.a "},
        {"ALTER TABLE a EXCHANGE PARTITION p WITH TABLE b", "d.a d.b "},
        {"CREATE /* a */ TABLE IF NOT EXISTS \"q\" LIKE r", "d.q "},
        {"CREATE INDEX i ON s.t (a)", "s.t "},
        {"DROP INDEX i ON t", "d.t "},
        {"DROP DATABASE IF EXISTS s", "s. "},
        {"SET STATEMENT lock_wait_timeout=1, a='x' FOR TRUNCATE TABLE t", "d.t "},
        {"SET STATEMENT a=1 FOR SET STATEMENT b=2 FOR DROP TABLE s.t, u", "s.t d.u "},
        {"ALTER DATABASE s CHARACTER SET utf8mb4", ""},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf out;

        buf_init(&out, 4096);
        buf_adds(&out, "");
        sql_names(cases[i][0], strlen(cases[i][0]), "d", take, &out);
        assert_string_equal(out.data, cases[i][1]);
        buf_release(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_kinds), cmocka_unit_test(test_names)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
