CREATE TABLE t (id int PRIMARY KEY, v int UNIQUE);
INSERT INTO t SELECT i, i FROM generate_series(1, 1000) i;
