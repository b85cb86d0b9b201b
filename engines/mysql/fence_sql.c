/* The server's side of the fence, as SQL text; fence.c calls it (fence.md §2, §3 have the facts).
 *
 * What refuses writes is the server's read_only; lockstep's own role passes by privilege. The row
 * of lockstep.fence says whose the fence is, what it is meant to be and what the server was before.
 * The two cannot change in one transaction (SET GLOBAL is refused inside of one), so each move is
 * one procedure under one user lock of the server, which ends with its session, and its steps stand
 * in an order in which a kill between any two leaves what a repeat, or the event, brings to its
 * end: the row says "leased" or "sealed" before read_only goes on, and "open" only when all is as
 * it was.
 *
 * The event looks once a second, under the same lock: it lapses a lease whose end has passed, and
 * puts a seal back that a restart has taken off (MariaDB forgets read_only). A lease that is
 * renewed in the last moment is seen by the event, or lapsed before the renewal, which then fails.
 */
#include "engines/mysql/fence.h"

static const char table_fence[] =
    "CREATE TABLE IF NOT EXISTS lockstep.fence (\n"
    " one TINYINT NOT NULL PRIMARY KEY,\n"
    " mode VARCHAR(8) NOT NULL DEFAULT 'open',\n"
    " token VARCHAR(40) NOT NULL DEFAULT '',\n"
    " epoch BIGINT NOT NULL DEFAULT 0,\n"
    " lease_end BIGINT NOT NULL DEFAULT 0,\n"
    " was_read_only TINYINT NOT NULL DEFAULT 0\n"
    ") ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin";

/* Whose lock seals where read_only is not durable. locked: by us, to be taken back. */
static const char table_account[] = "CREATE TABLE IF NOT EXISTS lockstep.fence_account (\n"
                                    " user VARCHAR(128) NOT NULL,\n"
                                    " host VARCHAR(255) NOT NULL,\n"
                                    " locked TINYINT NOT NULL DEFAULT 0,\n"
                                    " PRIMARY KEY (user, host)\n"
                                    ") ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = "
                                    "utf8mb4_bin";

/* A running statement makes SET GLOBAL wait, and others behind it: a second, or two, since it takes
 * two locks one behind the other, and each may wait that long. */
static const char read_only[] =
    "CREATE PROCEDURE IF NOT EXISTS lockstep.fence_read_only(p_on TINYINT, p_keep TINYINT)\n"
    "SQL SECURITY INVOKER\n"
    "BEGIN\n"
    " DECLARE v_wait BIGINT DEFAULT @@SESSION.lock_wait_timeout;\n"
    " DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN\n"
    "  SET SESSION lock_wait_timeout = v_wait;\n"
    "  RESIGNAL;\n"
    " END;\n"
    " SET SESSION lock_wait_timeout = 1;\n"
    " IF p_keep THEN\n"
    "  SET @KEEP@ read_only = p_on;\n"
    " ELSE\n"
    "  SET GLOBAL read_only = p_on;\n"
    " END IF;\n"
    " SET SESSION lock_wait_timeout = v_wait;\n"
    "END";

static const char enter[] =
    "CREATE PROCEDURE IF NOT EXISTS lockstep.fence_enter(p_token VARCHAR(40) CHARACTER SET "
    "utf8mb4)\n"
    "SQL SECURITY INVOKER\n"
    "BEGIN\n"
    " IF coalesce(p_token, '') = '' THEN\n"
    "  SIGNAL SQLSTATE '22023' SET MESSAGE_TEXT = 'a fence needs a token';\n"
    " END IF;\n"
    " IF coalesce(GET_LOCK('lockstep.fence', 5), 0) <> 1 THEN\n"
    "  SIGNAL SQLSTATE 'LS003' SET MESSAGE_TEXT = 'another session moves the fence';\n"
    " END IF;\n"
    "END";

#define DECLARE_ROW                                                                                \
    " DECLARE v_mode VARCHAR(8) CHARACTER SET utf8mb4;\n"                                          \
    " DECLARE v_token VARCHAR(40) CHARACTER SET utf8mb4;\n"                                        \
    " DECLARE v_epoch BIGINT;\n"                                                                   \
    " DECLARE v_end BIGINT;\n"                                                                     \
    " DECLARE v_was TINYINT;\n"                                                                    \
    " DECLARE v_text VARCHAR(128) CHARACTER SET utf8mb4;\n"
#define RELEASE_ON_ERROR                                                                           \
    " DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN\n"                                               \
    "  DO RELEASE_LOCK('lockstep.fence');\n"                                                       \
    "  RESIGNAL;\n"                                                                                \
    " END;\n"
#define READ_ROW                                                                                   \
    " SELECT f.mode, f.token, f.epoch, f.lease_end, f.was_read_only\n"                             \
    "  INTO v_mode, v_token, v_epoch, v_end, v_was FROM lockstep.fence f WHERE f.one = 1;\n"       \
    " SET v_text = concat('the fence is held by ', v_token, ' (epoch ', v_epoch, ', ', v_mode, "   \
    "')');\n"

/* If the server does not come to rest in time, it is as before. */
static const char flip[] =
    "CREATE PROCEDURE IF NOT EXISTS lockstep.fence_flip(p_token VARCHAR(40) CHARACTER SET "
    "utf8mb4,\n"
    " p_epoch BIGINT, p_lease BIGINT)\n"
    "SQL SECURITY INVOKER\n"
    "BEGIN\n" DECLARE_ROW RELEASE_ON_ERROR " CALL lockstep.fence_enter(p_token);\n" READ_ROW
    " IF v_mode = 'sealed' OR v_epoch > p_epoch OR (v_epoch = p_epoch AND v_token <> p_token\n"
    "  AND v_mode = 'leased' AND v_end > @NOW@) THEN\n"
    "  SIGNAL SQLSTATE 'LS001' SET MESSAGE_TEXT = v_text;\n"
    " END IF;\n"
    " UPDATE lockstep.fence SET was_read_only = if(mode = 'open', @@GLOBAL.read_only, "
    "was_read_only),\n"
    "  token = p_token, epoch = p_epoch, mode = 'leased', lease_end = @NOW@ + p_lease\n"
    "  WHERE one = 1;\n"
    " BEGIN\n"
    "  DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN\n"
    "   UPDATE lockstep.fence SET mode = 'open'\n"
    "    WHERE one = 1 AND was_read_only = @@GLOBAL.read_only;\n"
    "   RESIGNAL;\n"
    "  END;\n"
    "  CALL lockstep.fence_read_only(1, 0);\n"
    " END;\n"
    " UPDATE lockstep.fence SET lease_end = @NOW@ + p_lease WHERE one = 1;\n"
    " DO RELEASE_LOCK('lockstep.fence');\n"
    "END";

static const char take[] =
    "CREATE PROCEDURE IF NOT EXISTS lockstep.fence_take(p_token VARCHAR(40) CHARACTER SET "
    "utf8mb4,\n"
    " p_epoch BIGINT)\n"
    "SQL SECURITY INVOKER\n"
    "BEGIN\n" DECLARE_ROW RELEASE_ON_ERROR " CALL lockstep.fence_enter(p_token);\n" READ_ROW
    " IF v_epoch > p_epoch OR (v_epoch = p_epoch AND v_token <> p_token\n"
    "  AND (v_mode = 'sealed' OR (v_mode = 'leased' AND v_end > @NOW@))) THEN\n"
    "  SIGNAL SQLSTATE 'LS001' SET MESSAGE_TEXT = v_text;\n"
    " END IF;\n"
    " UPDATE lockstep.fence SET token = p_token, epoch = p_epoch WHERE one = 1;\n"
    " DO RELEASE_LOCK('lockstep.fence');\n"
    "END";

static const char renew[] =
    "CREATE PROCEDURE IF NOT EXISTS lockstep.fence_renew(p_token VARCHAR(40) CHARACTER SET "
    "utf8mb4,\n"
    " p_lease BIGINT)\n"
    "SQL SECURITY INVOKER\n"
    "BEGIN\n" DECLARE_ROW RELEASE_ON_ERROR " CALL lockstep.fence_enter(p_token);\n" READ_ROW
    " IF v_mode = 'sealed' OR v_token <> p_token THEN\n"
    "  SIGNAL SQLSTATE 'LS001' SET MESSAGE_TEXT = v_text;\n"
    " END IF;\n"
    " IF v_mode = 'open' OR v_end <= @NOW@ OR @@GLOBAL.read_only = 0 THEN\n"
    "  SIGNAL SQLSTATE 'LS002' SET MESSAGE_TEXT = 'the lease has lapsed, the fence is open';\n"
    " END IF;\n"
    " UPDATE lockstep.fence SET lease_end = @NOW@ + p_lease WHERE one = 1;\n"
    " DO RELEASE_LOCK('lockstep.fence');\n"
    "END";

/* A locked account's open sessions would go on: they are ended, also those that seem to be ending
 * (a statement that is killed, and a reset, look the same, and their sessions go on). Who was let
 * in just before the lock may have no name yet, so those that are logging in are waited for, and
 * after half a second ended too. One that is ended may be in the middle of a statement that passes
 * read_only (a routine with its definer's rights), so it is looked until all are gone; if some are
 * not, nobody is told that the lease has held, and the writers are waited for. Whoever came behind
 * the first look met the lock; connections are numbered in the order in which they come. */
static const char end_all[] =
    "CREATE PROCEDURE IF NOT EXISTS lockstep.fence_end_all()\n"
    "SQL SECURITY INVOKER\n"
    "BEGIN\n"
    " DECLARE v_id BIGINT UNSIGNED;\n"
    " DECLARE v_named TINYINT;\n"
    " DECLARE v_last BIGINT UNSIGNED DEFAULT 18446744073709551615;\n"
    " DECLARE v_seen BIGINT UNSIGNED;\n"
    " DECLARE v_left INT;\n"
    " DECLARE v_tries INT DEFAULT 0;\n"
    " DECLARE v_done TINYINT;\n"
    " DECLARE c CURSOR FOR SELECT p.id, a.user IS NOT NULL FROM information_schema.processlist p\n"
    "  LEFT JOIN (SELECT DISTINCT user FROM lockstep.fence_account) a ON a.user = p.user\n"
    "  WHERE p.id <> connection_id() AND p.id <= v_last\n"
    "  AND (a.user IS NOT NULL OR p.user = 'unauthenticated user');\n"
    " DECLARE CONTINUE HANDLER FOR NOT FOUND SET v_done = 1;\n"
    " DECLARE CONTINUE HANDLER FOR 1094 BEGIN END;\n"
    " each_look: LOOP\n"
    "  SET v_done = 0, v_left = 0, v_seen = 0;\n"
    "  OPEN c;\n"
    "  each_session: LOOP\n"
    "   FETCH c INTO v_id, v_named;\n"
    "   IF v_done THEN\n"
    "    LEAVE each_session;\n"
    "   END IF;\n"
    "   SET v_seen = greatest(v_seen, v_id), v_left = v_left + 1;\n"
    "   IF v_named OR v_tries >= 60 THEN\n"
    "    KILL v_id;\n"
    "   END IF;\n"
    "  END LOOP;\n"
    "  CLOSE c;\n"
    "  IF v_left = 0 THEN\n"
    "   LEAVE each_look;\n"
    "  END IF;\n"
    "  IF v_tries >= 75 THEN\n"
    "   SET @lockstep_held = '';\n"
    "   LEAVE each_look;\n"
    "  END IF;\n"
    "  SET v_last = v_seen, v_tries = v_tries + 1;\n"
    "  DO SLEEP(if(v_tries < 25, 0.001, 0.01));\n"
    " END LOOP;\n"
    "END";

/* That we lock it is written before it is done; one that was locked before stays locked after. */
static const char accounts[] =
    "CREATE PROCEDURE IF NOT EXISTS lockstep.fence_accounts(p_lock TINYINT)\n"
    "SQL SECURITY INVOKER\n"
    "BEGIN\n"
    " DECLARE v_user VARCHAR(128) CHARACTER SET utf8mb4;\n"
    " DECLARE v_host VARCHAR(255) CHARACTER SET utf8mb4;\n"
    " DECLARE v_ours TINYINT;\n"
    " DECLARE v_done TINYINT DEFAULT 0;\n"
    " DECLARE c CURSOR FOR SELECT a.user, a.host, a.locked FROM lockstep.fence_account a;\n"
    " DECLARE CONTINUE HANDLER FOR NOT FOUND SET v_done = 1;\n"
    " OPEN c;\n"
    " each_account: LOOP\n"
    "  FETCH c INTO v_user, v_host, v_ours;\n"
    "  IF v_done THEN\n"
    "   LEAVE each_account;\n"
    "  END IF;\n"
    "  IF p_lock AND NOT @LOCKED@ THEN\n"
    "   UPDATE lockstep.fence_account SET locked = 1 WHERE user = v_user AND host = v_host;\n"
    "  END IF;\n"
    "  IF p_lock OR v_ours THEN\n"
    "   SET @lockstep_sql = concat('ALTER USER IF EXISTS ', quote(v_user), '@', quote(v_host),\n"
    "    if(p_lock, ' ACCOUNT LOCK', ' ACCOUNT UNLOCK'));\n"
    "   PREPARE lockstep_alter FROM @lockstep_sql;\n"
    "   EXECUTE lockstep_alter;\n"
    "   DEALLOCATE PREPARE lockstep_alter;\n"
    "  END IF;\n"
    "  IF NOT p_lock THEN\n"
    "   UPDATE lockstep.fence_account SET locked = 0 WHERE user = v_user AND host = v_host;\n"
    "  END IF;\n"
    "  SET v_done = 0;\n"
    " END LOOP;\n"
    " CLOSE c;\n"
    " IF p_lock AND v_user IS NOT NULL THEN\n"
    "  CALL lockstep.fence_end_all();\n"
    " END IF;\n"
    "END";

/* If the server does not come to rest in time, it is as before, and no event tries on. */
static const char seal[] =
    "CREATE PROCEDURE IF NOT EXISTS lockstep.fence_seal(p_token VARCHAR(40) CHARACTER SET "
    "utf8mb4,\n"
    " p_epoch BIGINT)\n"
    "SQL SECURITY INVOKER\n"
    "BEGIN\n" DECLARE_ROW RELEASE_ON_ERROR " CALL lockstep.fence_enter(p_token);\n" READ_ROW
    " IF v_epoch > p_epoch OR (v_epoch = p_epoch AND v_token <> p_token) THEN\n"
    "  SIGNAL SQLSTATE 'LS001' SET MESSAGE_TEXT = v_text;\n"
    " END IF;\n"
    " SET @lockstep_held = if(v_mode = 'leased' AND v_token = p_token\n"
    "  AND @@GLOBAL.read_only = 1, p_token, '');\n"
    " UPDATE lockstep.fence SET was_read_only = if(mode = 'open', @@GLOBAL.read_only, "
    "was_read_only),\n"
    "  token = p_token, epoch = p_epoch, mode = 'sealed', lease_end = 0 WHERE one = 1;\n"
    " BEGIN\n"
    "  DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN\n"
    "   UPDATE lockstep.fence SET mode = v_mode, lease_end = v_end\n"
    "    WHERE one = 1 AND v_mode <> 'sealed' AND @@GLOBAL.read_only = 0;\n"
    "   RESIGNAL;\n"
    "  END;\n"
    "  CALL lockstep.fence_read_only(1, 1);\n"
    " END;\n"
    " CALL lockstep.fence_accounts(1);\n"
    " DO RELEASE_LOCK('lockstep.fence');\n"
    "END";

/* As it was before us, and the row last: whoever is killed here repeats it. */
static const char open_again[] =
    "CREATE PROCEDURE IF NOT EXISTS lockstep.fence_open()\n"
    "SQL SECURITY INVOKER\n"
    "BEGIN\n" DECLARE_ROW READ_ROW " IF v_mode <> 'open' THEN\n"
    "  CALL lockstep.fence_accounts(0);\n"
    "  CALL lockstep.fence_read_only(v_was, v_mode = 'sealed');\n"
    "  UPDATE lockstep.fence SET mode = 'open', lease_end = 0 WHERE one = 1;\n"
    " END IF;\n"
    "END";

static const char lift[] =
    "CREATE PROCEDURE IF NOT EXISTS lockstep.fence_lift(p_token VARCHAR(40) CHARACTER SET "
    "utf8mb4)\n"
    "SQL SECURITY INVOKER\n"
    "BEGIN\n" DECLARE_ROW RELEASE_ON_ERROR " CALL lockstep.fence_enter(p_token);\n" READ_ROW
    " IF v_token <> p_token AND (v_mode = 'sealed' OR (v_mode = 'leased' AND v_end > @NOW@)) THEN\n"
    "  SIGNAL SQLSTATE 'LS001' SET MESSAGE_TEXT = v_text;\n"
    " END IF;\n"
    " IF v_token = p_token THEN\n"
    "  CALL lockstep.fence_open();\n"
    " END IF;\n"
    " DO RELEASE_LOCK('lockstep.fence');\n"
    "END";

static const char tick[] = "CREATE PROCEDURE IF NOT EXISTS lockstep.fence_tick()\n"
                           "SQL SECURITY INVOKER\n"
                           "BEGIN\n" DECLARE_ROW RELEASE_ON_ERROR
                           " IF coalesce(GET_LOCK('lockstep.fence', 0), 0) = 1 THEN\n" READ_ROW
                           "  IF v_mode = 'leased' AND v_end <= @NOW@ THEN\n"
                           "   CALL lockstep.fence_open();\n"
                           "  ELSEIF v_mode = 'sealed' AND @@GLOBAL.read_only = 0 THEN\n"
                           "   CALL lockstep.fence_read_only(1, 1);\n"
                           "  END IF;\n"
                           "  DO RELEASE_LOCK('lockstep.fence');\n"
                           " END IF;\n"
                           "END";

static const char event[] = "CREATE EVENT IF NOT EXISTS lockstep.fence_lapse\n"
                            " ON SCHEDULE EVERY 1 SECOND ON COMPLETION PRESERVE ENABLE\n"
                            " DO CALL lockstep.fence_tick()";

const struct my_fence_object my_fence_objects[] = {
    {"TABLE", "fence", table_fence},
    {"TABLE", "fence_account", table_account},
    {"PROCEDURE", "fence_read_only", read_only},
    {"PROCEDURE", "fence_enter", enter},
    {"PROCEDURE", "fence_flip", flip},
    {"PROCEDURE", "fence_take", take},
    {"PROCEDURE", "fence_renew", renew},
    {"PROCEDURE", "fence_end_all", end_all},
    {"PROCEDURE", "fence_accounts", accounts},
    {"PROCEDURE", "fence_seal", seal},
    {"PROCEDURE", "fence_open", open_again},
    {"PROCEDURE", "fence_lift", lift},
    {"PROCEDURE", "fence_tick", tick},
    {"EVENT", "fence_lapse", event},
};
const unsigned my_fence_object_count = sizeof my_fence_objects / sizeof my_fence_objects[0];
