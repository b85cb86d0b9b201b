CREATE TABLE twins (a int, b text, c double precision);
ALTER TABLE twins REPLICA IDENTITY FULL;
INSERT INTO twins SELECT i % 50, CASE WHEN i % 3 = 0 THEN NULL ELSE 'x' END,
    CASE i % 4 WHEN 0 THEN 'NaN' WHEN 1 THEN 0.1 ELSE '-0' END FROM generate_series(1, 600) i;
CREATE TABLE only_inserts (at timestamptz DEFAULT now(), v json);
ALTER TABLE only_inserts REPLICA IDENTITY FULL;
CREATE TABLE by_index (n int NOT NULL, v text);
CREATE UNIQUE INDEX by_index_n ON by_index (n);
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_n;
INSERT INTO by_index SELECT i, 'v' FROM generate_series(1, 500) i;
