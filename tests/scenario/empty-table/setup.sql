CREATE TABLE empty (id int PRIMARY KEY, v text);
CREATE TABLE filled_later (id uuid PRIMARY KEY, v int);
CREATE TABLE no_columns ();
ALTER TABLE no_columns REPLICA IDENTITY FULL;
CREATE TABLE key_only (id int PRIMARY KEY);
CREATE TABLE emptied (id int PRIMARY KEY);
INSERT INTO emptied SELECT generate_series(1, 500);
CREATE TABLE empty_parts (id int PRIMARY KEY) PARTITION BY HASH (id);
CREATE TABLE empty_parts_0 PARTITION OF empty_parts FOR VALUES WITH (MODULUS 1, REMAINDER 0);
