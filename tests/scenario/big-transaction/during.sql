BEGIN;
UPDATE t SET v = v + 1;
DELETE FROM t WHERE id % 10 = 0;
INSERT INTO t SELECT i, 1, 'again' FROM generate_series(10, 200000, 20) i;
INSERT INTO marks VALUES (1);
COMMIT;
