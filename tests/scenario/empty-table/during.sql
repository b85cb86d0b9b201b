INSERT INTO filled_later SELECT md5(i::text)::uuid, i FROM generate_series(1, 100) i;
INSERT INTO key_only SELECT generate_series(1, 100);
UPDATE key_only SET id = id + 1000 WHERE id < 50;
UPDATE key_only SET id = id;
DELETE FROM emptied;
INSERT INTO empty_parts VALUES (1);
