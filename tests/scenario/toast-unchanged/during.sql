UPDATE t SET small = small + 1;
UPDATE t SET small = small + 1, other = 'short' WHERE id % 4 = 0;
UPDATE t SET big = NULL WHERE id = 7;
UPDATE t SET big = '' WHERE id = 8;
BEGIN;
UPDATE t SET big = noise(100000 + id, 9500) WHERE id BETWEEN 10 AND 20;
UPDATE t SET small = 99 WHERE id BETWEEN 10 AND 20;
COMMIT;
-- Without a key the old row is found by all its values, the long ones included.
UPDATE f SET id = id + 100;
DELETE FROM f WHERE id = 101;
