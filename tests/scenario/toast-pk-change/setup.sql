CREATE FUNCTION noise(seed bigint, n int) RETURNS text LANGUAGE sql AS $$
    SELECT left(string_agg(md5(seed || '.' || i), ''), n) FROM generate_series(1, n / 32 + 1) i
$$;

CREATE TABLE t (id int PRIMARY KEY, small int, big text);
INSERT INTO t SELECT i, 0, noise(i, 9000) FROM generate_series(1, 600) i;
