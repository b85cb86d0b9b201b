/* --stage of cutover and rollback: what was asked for, and what came of it. */
#ifndef LOCKSTEP_CLI_STAGE_H
#define LOCKSTEP_CLI_STAGE_H

#include "cli/cli.h"
#include "cutover/cutover.h"

/* ERR_CONFIG: neither reads nor writes was said. */
int stage_wanted(const struct cli *c, bool *reads, struct err *e);
/* What is asked before. */
const char *stage_question(const struct cutover_request *r);
void stage_tell(struct cli *c, const struct cutover_request *r, const json_t *record);
/* Of a cutover that failed: its state, and where reads were sent. */
void stage_tell_failed(struct cli *c, const json_t *record);

#endif
