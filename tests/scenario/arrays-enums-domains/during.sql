INSERT INTO t SELECT (jsonb_populate_record(whole, '{"id": 1001}')).* FROM t AS whole WHERE id = 1000;
UPDATE t SET ms = '{}', t = '{}', i = '{{1,2},{3,4}}', p = ROW(NULL, ''), iv = '178000000 years',
    by = NULL, n = '1.10', f = 'NaN', c = '', js = '  [1]  ' WHERE id <= 100;
UPDATE t SET m = 'it''s "fine", {really}' WHERE m = 'sad';
UPDATE keyed SET m = 'sad', n = n + 0.1 WHERE d < '2026-03-01' AND m = 'ok';
DELETE FROM keyed WHERE n = 'NaN';
UPDATE keyed SET b = b || '\xff' WHERE m = 'ok';
