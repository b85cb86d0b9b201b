CREATE FUNCTION noise(seed bigint, n int) RETURNS text LANGUAGE sql AS $$
    SELECT left(string_agg(md5(seed || '.' || i), ''), n) FROM generate_series(1, n / 32 + 1) i
$$;

CREATE TABLE t (id int PRIMARY KEY, small int, big text, other text);
ALTER TABLE t ALTER other SET STORAGE EXTERNAL;
INSERT INTO t SELECT i, 0, noise(i, 9000), CASE WHEN i % 2 = 0 THEN noise(-i, 12000) END
FROM generate_series(1, 600) i;
CREATE TABLE f (id int, big text);
ALTER TABLE f REPLICA IDENTITY FULL;
INSERT INTO f SELECT i, noise(i + 5000, 10000) FROM generate_series(1, 20) i;
