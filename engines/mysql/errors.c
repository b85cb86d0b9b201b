/* Errors of the server and of the client library by the classes of engines/engine.h. MySQL's
 * SQLSTATEs are too coarse for that (HY000 is most of them), so the numbers decide, and the
 * SQLSTATE only where a number is not listed. */
#include "engines/mysql/my.h"

#include <errmsg.h>
#include <stdio.h>
#include <string.h>

/* Sorted by class, then number. */
static const struct {
    unsigned short code;
    unsigned char class;
} codes[] = {
    /* disk full, memory, a full table: somebody makes room, and no table is to blame */
    {3, ERR_RETRY},
    {5, ERR_RETRY},
    {20, ERR_RETRY},
    {1021, ERR_RETRY},
    {1026, ERR_RETRY},
    {1037, ERR_RETRY},
    {1038, ERR_RETRY},
    {1041, ERR_RETRY},
    {1114, ERR_RETRY},
    {1135, ERR_RETRY},
    {1878, ERR_RETRY},
    /* locks: timeout, deadlock, lock table full, read lock, NOWAIT, a table that has changed */
    {1205, ERR_RETRY},
    {1206, ERR_RETRY},
    {1213, ERR_RETRY},
    {1223, ERR_RETRY},
    {1020, ERR_RETRY},
    {1412, ERR_RETRY},
    {1637, ERR_RETRY},
    {3572, ERR_RETRY},
    /* connections: too many, killed, the server stops, starts or is read only */
    {1040, ERR_RETRY},
    {1203, ERR_RETRY},
    {1226, ERR_RETRY},
    {1053, ERR_RETRY},
    {1077, ERR_RETRY},
    {1079, ERR_RETRY},
    {1152, ERR_RETRY},
    {1158, ERR_RETRY},
    {1159, ERR_RETRY},
    {1160, ERR_RETRY},
    {1161, ERR_RETRY},
    {1184, ERR_RETRY},
    {1290, ERR_RETRY},
    {1317, ERR_RETRY},
    {1836, ERR_RETRY},
    {1927, ERR_RETRY},
    {1969, ERR_RETRY},
    {3024, ERR_RETRY},
    {3032, ERR_RETRY},
    {3101, ERR_RETRY},
    {3168, ERR_RETRY},
    {3169, ERR_RETRY},
    {4031, ERR_RETRY},
    {CR_CONNECTION_ERROR, ERR_RETRY},
    {CR_CONN_HOST_ERROR, ERR_RETRY},
    {CR_UNKNOWN_HOST, ERR_RETRY},
    {CR_SERVER_GONE_ERROR, ERR_RETRY},
    {CR_SERVER_HANDSHAKE_ERR, ERR_RETRY},
    {CR_SERVER_LOST, ERR_RETRY},
    {CR_SERVER_LOST_EXTENDED, ERR_RETRY},
    /* constraints */
    {1022, ERR_CONFLICT},
    {1048, ERR_CONFLICT},
    {1062, ERR_CONFLICT},
    {1169, ERR_CONFLICT},
    {1216, ERR_CONFLICT},
    {1217, ERR_CONFLICT},
    {1263, ERR_CONFLICT},
    {1451, ERR_CONFLICT},
    {1452, ERR_CONFLICT},
    {1557, ERR_CONFLICT},
    {1586, ERR_CONFLICT},
    {1761, ERR_CONFLICT},
    {1762, ERR_CONFLICT},
    {3819, ERR_CONFLICT},
    {4025, ERR_CONFLICT},
    /* values */
    {1118, ERR_DATA},
    {1153, ERR_DATA},
    {1264, ERR_DATA},
    {1265, ERR_DATA},
    {1292, ERR_DATA},
    {1300, ERR_DATA},
    {1366, ERR_DATA},
    {1367, ERR_DATA},
    {1364, ERR_DATA},
    {1406, ERR_DATA},
    {1411, ERR_DATA},
    {1416, ERR_DATA},
    {1426, ERR_DATA},
    {1439, ERR_DATA},
    {1525, ERR_DATA},
    {1526, ERR_DATA},
    {1690, ERR_DATA},
    {3140, ERR_DATA},
    {3141, ERR_DATA},
    {3156, ERR_DATA},
    {3903, ERR_DATA},
    {3854, ERR_DATA},
    {4078, ERR_DATA},
    {CR_NET_PACKET_TOO_LARGE, ERR_DATA},
    /* rights */
    {1044, ERR_REFUSED},
    {1045, ERR_REFUSED},
    {1142, ERR_REFUSED},
    {1143, ERR_REFUSED},
    {1227, ERR_REFUSED},
    {1345, ERR_REFUSED},
    {1370, ERR_REFUSED},
    {1410, ERR_REFUSED},
    {1419, ERR_REFUSED},
    {1698, ERR_REFUSED},
    {1820, ERR_REFUSED},
    {1873, ERR_REFUSED},
    {3118, ERR_REFUSED},
    {3619, ERR_REFUSED},
    {4151, ERR_REFUSED},
};

static const struct {
    const char *prefix;
    enum err_class class;
} states[] = {
    {"08", ERR_RETRY},    {"40", ERR_RETRY}, {"70100", ERR_RETRY},
    {"23", ERR_CONFLICT}, {"22", ERR_DATA},  {"28", ERR_REFUSED},
};

/* What a storage engine could not do; the text alone tells why, in the server's language: "Got
 * error 28 "No space left on device" from storage engine InnoDB". */
#define ENGINE_ERROR 1030
#define NO_SPACE " 28 "

static enum err_class class_of(unsigned code, const char *sqlstate, const char *text)
{
    if (code == ENGINE_ERROR && strstr(text, NO_SPACE) != NULL)
        return ERR_RETRY;
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (codes[i].code == code)
            return (enum err_class)codes[i].class;
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++)
        if (strncmp(sqlstate, states[i].prefix, strlen(states[i].prefix)) == 0)
            return states[i].class;
    return ERR_FATAL;
}

/* After these the session is gone, though the socket may not show it yet. */
static bool session_lost(unsigned code)
{
    static const unsigned short lost[] = {CR_SERVER_GONE_ERROR,
                                          CR_SERVER_LOST,
                                          CR_SERVER_LOST_EXTENDED,
                                          CR_NET_PACKET_TOO_LARGE,
                                          CR_MALFORMED_PACKET,
                                          CR_COMMANDS_OUT_OF_SYNC,
                                          1053,
                                          1152,
                                          1153,
                                          1158,
                                          1159,
                                          1160,
                                          1161,
                                          1184,
                                          1927,
                                          3169,
                                          4031};

    for (size_t i = 0; i < sizeof lost / sizeof lost[0]; i++)
        if (lost[i] == code)
            return true;
    return false;
}

static bool wants_room(unsigned code, enum err_class class)
{
    return code == 3 || code == 20 || code == 1021 || code == 1026 || code == 1114 ||
           code == 1878 || (code == ENGINE_ERROR && class == ERR_RETRY);
}

static void hint_for(unsigned code, enum err_class class, struct err *e)
{
    if (class == ERR_REFUSED)
        err_hint(e, "as an administrator: GRANT the missing right to that account (`lockstep "
                    "check` names each)");
    else if (code == 1290 || code == 1836)
        err_hint(e, "the server takes no writes: SET GLOBAL read_only = 0 once that is meant to "
                    "end, or name the primary in the URI");
    else if (code == 1153 || code == CR_NET_PACKET_TOO_LARGE)
        err_hint(e, "SET GLOBAL max_allowed_packet = 1073741824 on the server, then start again");
    else if (wants_room(code, class))
        err_hint(e, "make room on the server's disk");
    else if (code == 1040 || code == 1203)
        err_hint(e, "raise max_connections or max_user_connections");
}

int my_fail_code(unsigned code, const char *sqlstate, const char *text, struct err *e)
{
    enum err_class class =
        class_of(code, sqlstate != NULL ? sqlstate : "", text != NULL ? text : "");

    err_set(e, class, "%s (error %u)", text != NULL && text[0] != '\0' ? text : "error", code);
    if (e == NULL)
        return -1;
    for (char *p = e->msg; *p != '\0'; p++)
        if (*p == '\n')
            *p = ' ';
    if (sqlstate != NULL)
        snprintf(e->sqlstate, sizeof e->sqlstate, "%s", sqlstate);
    hint_for(code, class, e);
    return -1;
}

int my_fail(struct my_db *db, const char *doing, struct err *e)
{
    unsigned code = mysql_errno(db->conn);

    if (session_lost(code))
        db->broken = true;
    if (code == CR_SERVER_GONE_ERROR || code == CR_SERVER_LOST || code == CR_SERVER_LOST_EXTENDED)
        err_set(e, ERR_RETRY, "connection to %s lost: %s", db->where, mysql_error(db->conn));
    else
        my_fail_code(code, mysql_sqlstate(db->conn), mysql_error(db->conn), e);
    return doing != NULL ? err_wrap(e, "%s", doing) : -1;
}
