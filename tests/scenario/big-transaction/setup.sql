CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL, pad text);
CREATE INDEX t_v ON t (v);
INSERT INTO t SELECT i, 0, repeat('x', 60) FROM generate_series(1, 200000) i;
CREATE TABLE marks (n int PRIMARY KEY);
