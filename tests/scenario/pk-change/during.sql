UPDATE t SET id = id + 100000 WHERE id % 10 = 0;
UPDATE t SET id = id - 100000, v = v || '!' WHERE id > 100000 AND id % 20 = 0;
-- The key that one row frees is taken by the next, in one transaction.
BEGIN;
UPDATE t SET id = -1 WHERE id = 1;
UPDATE t SET id = 1 WHERE id = 2;
UPDATE t SET id = 2 WHERE id = 3;
UPDATE t SET id = 3 WHERE id = -1;
COMMIT;
-- Two rows exchange their keys by way of a third.
BEGIN;
UPDATE t SET id = -5 WHERE id = 11;
UPDATE t SET id = 11 WHERE id = 12;
UPDATE t SET id = 12 WHERE id = -5;
COMMIT;
UPDATE pair SET a = 'k' || b % 7, b = b + 10000 WHERE b % 3 = 0;
UPDATE pair SET a = upper(a);
-- There and back again leaves nothing to do.
BEGIN;
UPDATE t SET id = id + 500000 WHERE id BETWEEN 21 AND 29;
UPDATE t SET id = id - 500000 WHERE id > 500000;
COMMIT;
