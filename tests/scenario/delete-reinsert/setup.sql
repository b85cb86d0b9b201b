CREATE TABLE t (id int PRIMARY KEY, v text, n int DEFAULT 7);
INSERT INTO t SELECT i, 'old' FROM generate_series(1, 3000) i;
