CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE pair (a text, b int, v int, PRIMARY KEY (a, b));
INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 5000) i;
INSERT INTO pair SELECT 'k' || i % 10, i, i FROM generate_series(1, 5000) i;
