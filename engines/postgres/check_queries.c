/* The questions of `check` that the server can answer in one query: each row is a finding. */
#include "engines/postgres/check.h"

#define QUOTED_TABLE "format('%I.%I', n.nspname, c.relname)"
#define LABEL "n.nspname || '.' || c.relname"
#define CHOSEN                                                                                     \
    " FROM p, pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY "         \
    "(p.tables)"

/* Asked of both sides. An application that logs in as lockstep's role would pass the fence. */
#define OWN_ROLE_QUERY                                                                             \
    "SELECT true, 'role ' || session_user, format('%s session(s) of other programs log in as"      \
    " lockstep''s own role (%s): the fence would let them pass', count(*),"                        \
    " string_agg(DISTINCT coalesce(nullif(a.application_name, ''), 'pid ' || a.pid), ', ')),"      \
    " 'give lockstep a login role of its own'"                                                     \
    " FROM p, pg_stat_activity a WHERE a.usename = session_user"                                   \
    " AND a.datname = current_database() AND a.backend_type = 'client backend'"                    \
    " AND a.application_name NOT LIKE 'lockstep:%' HAVING count(*) > 0"
#define CONTROL_QUERY                                                                              \
    "SELECT true, 'schema lockstep', CASE WHEN to_regclass('lockstep.fact') IS NULL THEN"          \
    " 'a schema of that name exists and is not lockstep''s' ELSE"                                  \
    " 'lockstep''s control schema belongs to role ' || pg_get_userbyid(s.nspowner) END,"           \
    " CASE WHEN to_regclass('lockstep.fact') IS NULL THEN 'rename that schema: the name is"        \
    " reserved' ELSE format('GRANT %I TO %I', pg_get_userbyid(s.nspowner), current_user) END"      \
    " FROM p, pg_namespace s WHERE s.nspname = 'lockstep' AND"                                     \
    " (NOT pg_has_role(s.nspowner, 'USAGE') OR to_regclass('lockstep.fact') IS NULL AND EXISTS"    \
    " (SELECT FROM pg_class k WHERE k.relnamespace = s.oid))"
#define CREATE_QUERY                                                                               \
    "SELECT true, 'database ' || current_database(), 'role ' || current_user || ' may not create"  \
    " schemas in it', format('GRANT CREATE ON DATABASE %I TO %I', current_database(),"             \
    " current_user) FROM p WHERE NOT has_database_privilege(current_database(), 'CREATE')"

/* A fence stands without its event trigger, but not as high. */
#define EVENT_TRIGGER_QUERY(when)                                                                  \
    "SELECT false, 'role ' || current_user, 'it may not create event triggers: during " when       \
    " DDL is not refused, and a partition that is made then is open to writes', format('make no"   \
    " DDL during " when ", or ALTER ROLE %I SUPERUSER', current_user) FROM p, pg_roles r"          \
    " WHERE r.rolname = current_user AND NOT r.rolsuper AND NOT EXISTS (SELECT FROM"               \
    " pg_event_trigger t WHERE t.evtname = '!lockstep_fence' AND t.evtenabled = 'A')"

const struct check_query check_source_queries[] = {
    {false, CREATE_QUERY},
    {false, CONTROL_QUERY},
    {false, OWN_ROLE_QUERY},
    {false, EVENT_TRIGGER_QUERY("a cutover")},
    {false, "SELECT true, 'source', 'it is a hot standby: its snapshots misstate running"
            " transactions', 'give the URI of the primary' FROM p WHERE pg_is_in_recovery()"},
    {false, "SELECT true, 'source', 'wal_level is ' || current_setting('wal_level') || ', not"
            " logical', 'ALTER SYSTEM SET wal_level = logical; then restart the server' FROM p"
            " WHERE current_setting('wal_level') <> 'logical'"},
    {false, "SELECT true, 'source', 'server version ' || current_setting('server_version') ||"
            " ' is older than 13', 'upgrade it, or use pg_dump' FROM p"
            " WHERE current_setting('server_version_num')::int < 130000"},
    {false, "SELECT true, 'source', 'the database''s encoding is SQL_ASCII: the meaning of its"
            " bytes is not known', 'dump and restore it into a UTF8 database first' FROM p"
            " WHERE current_setting('server_encoding') = 'SQL_ASCII'"},
    {false, "SELECT true, 'role ' || current_user, 'it has no REPLICATION right',"
            " format('ALTER ROLE %I REPLICATION', session_user) FROM p, pg_roles r"
            " WHERE r.rolname = session_user AND NOT r.rolreplication AND NOT r.rolsuper"},
    {true, "SELECT free < 1, 'source', format('%s of %s replication slots are free; capture needs"
           " one and verify another while it runs', free, total),"
           " format('ALTER SYSTEM SET max_replication_slots = %s; then restart the server, or drop"
           " unused slots', total + 4) FROM (SELECT s.total, s.total - (SELECT count(*) FROM"
           " pg_replication_slots) AS free FROM p, (SELECT"
           " current_setting('max_replication_slots')::int AS total) s) x WHERE free < 2"},
    {true, "SELECT free < 1, 'source', format('%s of %s WAL senders are free; capture needs one"
           " and verify another while it runs', free, total),"
           " format('ALTER SYSTEM SET max_wal_senders = %s; then restart the server', total + 4)"
           " FROM (SELECT s.total, s.total - (SELECT count(*) FROM pg_stat_replication) AS free "
           "FROM p, (SELECT"
           " current_setting('max_wal_senders')::int AS total) s) x WHERE free < 2"},
    {false, "SELECT false, 'source', 'max_slot_wal_keep_size is ' ||"
            " current_setting('max_slot_wal_keep_size') || ': a slot that falls further behind is"
            " lost', 'ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf()' FROM p"
            " WHERE current_setting('max_slot_wal_keep_size') <> '-1'"},
    {true, "SELECT true, 'slot ' || p.slot, 'a replication slot of that name exists already',"
           " format('lockstep finish --abandon, or SELECT pg_drop_replication_slot(%L)', p.slot)"
           " FROM p, pg_replication_slots r WHERE r.slot_name = p.slot"},
    {true, "SELECT true, 'publication ' || p.slot, 'a publication of that name exists already',"
           " format('lockstep finish --abandon, or DROP PUBLICATION %I', p.slot)"
           " FROM p, pg_publication b WHERE b.pubname = p.slot"},
    {false,
     "SELECT false, 'prepared transaction ' || x.gid, format('prepared %s ago: before it has ended"
     " no slot can be created, and no cutover made', date_trunc('second', now() - x.prepared)),"
     " format('COMMIT PREPARED %L, or ROLLBACK PREPARED %1$L, in database %s', x.gid,"
     " x.database) FROM p, pg_prepared_xacts x WHERE x.prepared < now() - interval '1 minute'"},
    {true, "SELECT false, 'pid ' || a.pid, format('its transaction has written and runs since %s: a"
           " slot cannot be created before it has ended', date_trunc('second', now() -"
           " a.xact_start)), 'wait for it, or SELECT pg_terminate_backend(' || a.pid || ')'"
           " FROM p, pg_stat_activity a WHERE a.backend_xid IS NOT NULL"
           " AND a.xact_start < now() - interval '5 minutes'"},
    {false, "SELECT false, 'large objects', 'the database has large objects: they are not copied',"
            " 'copy them with pg_dump --blobs during the cutover' FROM p"
            " WHERE EXISTS (SELECT FROM pg_largeobject_metadata)"},
    {false, "SELECT false, 'event trigger ' || t.evtname, 'event triggers are not copied',"
            " 'create it on the target after the cutover' FROM p, pg_event_trigger t"
            " WHERE t.evtname NOT LIKE '!lockstep%'"},
    /* the chosen tables */
    {false, "SELECT true, " LABEL ", 'it belongs to role ' || pg_get_userbyid(c.relowner) || ':"
            " publication and fence need its owner''s rights', format('GRANT %I TO %I',"
            " pg_get_userbyid(c.relowner), current_user)" CHOSEN
            " AND NOT pg_has_role(c.relowner, 'USAGE')"},
    {false, "SELECT true, " LABEL ", 'role ' || current_user || ' may not read it', format("
            "'GRANT USAGE ON SCHEMA %1$I TO %2$I; GRANT SELECT ON %3$s TO %2$I', n.nspname,"
            " current_user, " QUOTED_TABLE ")" CHOSEN
            " AND pg_has_role(c.relowner, 'USAGE') AND NOT (has_schema_privilege(n.oid, 'USAGE')"
            " AND has_table_privilege(c.oid, 'SELECT'))"},
    {false,
     "SELECT true, " LABEL ", 'row level security hides rows from role ' || current_user,"
     " format('ALTER ROLE %I BYPASSRLS', current_user)" CHOSEN " AND row_security_active(c.oid)"},
    {false, "SELECT true, " LABEL ", format('it takes part in table inheritance (%s)',"
            " string_agg(i.inhparent::regclass || ' <- ' || i.inhrelid::regclass, ', ')),"
            " 'end it (ALTER TABLE … NO INHERIT …), or exclude it (tables.exclude)'"
            " FROM p, pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " JOIN pg_inherits i ON c.oid IN (i.inhrelid, i.inhparent)"
            " WHERE c.oid = ANY (p.tables) AND NOT c.relispartition GROUP BY n.nspname, c.relname"},
    {false, "SELECT true, " LABEL ", format('trigger %I fires on replicated changes too"
            " (ENABLE %s): on the target its effects would come twice', t.tgname,"
            " CASE t.tgenabled WHEN 'A' THEN 'ALWAYS' ELSE 'REPLICA' END),"
            " format('ALTER TABLE %s ENABLE TRIGGER %I', " QUOTED_TABLE ", t.tgname)"
            " FROM p, pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
            " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY (p.tables)"
            " AND t.tgenabled IN ('A', 'R') AND NOT t.tgisinternal"
            " AND t.tgname <> '!lockstep_fence'"},
    /* Logical apply fires no statement triggers. Before 14 not everybody may read the oid in
     * pg_subscription, which the view of its workers shows as well. */
    {false, "SELECT DISTINCT true, " LABEL ", format('subscription %I writes to it: the fence would"
            " let that pass', s.subname), format('ALTER SUBSCRIPTION %I DISABLE, or exclude the"
            " table (tables.exclude)', s.subname)"
            " FROM p, pg_subscription_rel r JOIN pg_stat_subscription w ON w.subid = r.srsubid"
            " JOIN pg_subscription s ON s.subname = w.subname AND s.subenabled"
            " JOIN pg_database d ON d.oid = s.subdbid AND d.datname = current_database(),"
            " pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY (p.tables)"
            " AND (r.srrelid = c.oid OR r.srrelid IN (SELECT relid FROM"
            " pg_partition_ancestors(c.oid)))"},
    {false, "SELECT true, " LABEL ", format('rule %I acts on replicated changes too', t.rulename),"
            " format('ALTER TABLE %s ENABLE RULE %I', " QUOTED_TABLE ", t.rulename)"
            " FROM p, pg_rewrite t JOIN pg_class c ON c.oid = t.ev_class"
            " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY (p.tables)"
            " AND t.ev_enabled IN ('A', 'R')"},
    {false, "SELECT false, " LABEL ", format('foreign key %I refers to %s, which is not chosen: it"
            " will not exist on the target', k.conname, k.confrelid::regclass),"
            " 'add that table to tables.include, or accept it'"
            " FROM p, pg_constraint k JOIN pg_class c ON c.oid = k.conrelid"
            " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY (p.tables)"
            " AND k.contype = 'f' AND NOT EXISTS (SELECT FROM pg_partition_tree(k.confrelid) l"
            " WHERE l.relid = ANY (p.tables)) AND k.confrelid <> ALL (p.tables)"},
    {false, "SELECT false, " LABEL ", format('key column %I holds long values (%s bytes on"
            " average): where one is stored out of line, an update that does not change it carries"
            " no key', s.attname, s.avg_width), format('ALTER TABLE %s REPLICA IDENTITY FULL',"
            " " QUOTED_TABLE ") FROM p, pg_index i JOIN pg_class c ON c.oid = i.indrelid"
            " JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a"
            " ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey) JOIN pg_stats s"
            " ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname"
            " WHERE c.oid = ANY (p.tables) AND c.relreplident IN ('d', 'i')"
            " AND CASE c.relreplident WHEN 'd' THEN i.indisprimary ELSE i.indisreplident END"
            " AND a.attstorage IN ('x', 'e') AND s.avg_width > 200"},
};
const size_t check_source_nqueries = sizeof check_source_queries / sizeof check_source_queries[0];

const struct check_query check_target_queries[] = {
    {false, CREATE_QUERY},
    {false, CONTROL_QUERY},
    {false, OWN_ROLE_QUERY},
    {false, EVENT_TRIGGER_QUERY("a rollback")},
    {false, "SELECT true, 'target', 'it is a standby', 'give the URI of the primary' FROM p"
            " WHERE pg_is_in_recovery()"},
    {false, "SELECT true, 'target', 'the database''s encoding is ' ||"
            " current_setting('server_encoding') || ', not UTF8', 'create the target database with"
            " ENCODING ''UTF8'' TEMPLATE template0' FROM p"
            " WHERE current_setting('server_encoding') <> 'UTF8'"},
    {false, "SELECT false, 'target', 'wal_level is ' || current_setting('wal_level') || ': after a"
            " cutover there is no way back', 'ALTER SYSTEM SET wal_level = logical; then restart'"
            " FROM p WHERE current_setting('wal_level') <> 'logical'"},
    {false,
     "SELECT false, 'role ' || current_user, 'it has no REPLICATION right on the target: after"
     " a cutover there is no way back', format('ALTER ROLE %I REPLICATION', session_user)"
     " FROM p, pg_roles r WHERE r.rolname = session_user AND NOT r.rolreplication"
     " AND NOT r.rolsuper"},
};
const size_t check_target_nqueries = sizeof check_target_queries / sizeof check_target_queries[0];
