CREATE TABLE later (id int PRIMARY KEY, u int NOT NULL, CONSTRAINT later_u UNIQUE (u) DEFERRABLE);
CREATE TABLE at_once (id int PRIMARY KEY, u text UNIQUE, w int, UNIQUE (w, id));
CREATE TABLE bare (id int PRIMARY KEY, u int);
CREATE UNIQUE INDEX bare_u ON bare (u) WHERE u > 0;
INSERT INTO later SELECT i, i FROM generate_series(1, 1000) i;
INSERT INTO at_once SELECT i, 'u' || i, i FROM generate_series(1, 1000) i;
INSERT INTO bare SELECT i, i FROM generate_series(1, 1000) i;
