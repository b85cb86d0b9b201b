-- Exactly one of several equal rows.
DELETE FROM twins WHERE ctid = (SELECT ctid FROM twins WHERE a = 3 LIMIT 1);
UPDATE twins SET b = 'one' WHERE ctid = (SELECT ctid FROM twins WHERE a = 4 LIMIT 1);
UPDATE twins SET a = a + 1 WHERE a > 40;
INSERT INTO twins SELECT 1, NULL, 'NaN' FROM generate_series(1, 3);
DELETE FROM twins WHERE c = 'NaN' AND a < 5;
INSERT INTO only_inserts (v) SELECT '{"a": 1, "a": 2}' FROM generate_series(1, 40);
UPDATE by_index SET n = n + 1000 WHERE n % 2 = 0;
UPDATE by_index SET v = NULL WHERE n < 100;
DELETE FROM by_index WHERE n BETWEEN 200 AND 300;
