CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s "fine", {really}');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN small_positive AS positive CHECK (VALUE < 100000);
CREATE DOMAIN moods AS mood[];
CREATE TYPE pair AS (a int, b text);
CREATE TYPE span AS RANGE (subtype = numeric);
CREATE TABLE t (
    id small_positive PRIMARY KEY, m mood, ms moods, n numeric, n2 numeric(10,-2), p pair, ps pair[],
    i int[], t text[], by bytea[], j jsonb[], js json, r span, mr datemultirange, ir int4range,
    iv interval, tz timetz, x bit(3), vx bit varying, mac macaddr8, ip cidr, pt point, ts tsvector,
    q tsquery, c char(5), l "char", o oid, u uuid, b boolean, f real, mo money, big int8, xm xml
);
INSERT INTO t (id, m, n) SELECT i, 'ok', i FROM generate_series(1, 300) i;
INSERT INTO t VALUES (1000, 'sad', '{sad,NULL,"it''s \"fine\", {really}"}', 'NaN', 12345,
    ROW(1, NULL), ARRAY[ROW(1, 'x,"y)')::pair, NULL], '[0:1]={1,NULL}', '{"", NULL, "NULL", "\\", " "}',
    ARRAY[''::bytea, '\x00'::bytea], ARRAY['null'::jsonb, '{"a": 1.10}'], '{"b":1, "b" : 2}',
    '(1,]', '{[2026-01-01,2026-02-01), [2027-01-01,)}', 'empty', '-1 mon 2 days -00:00:00.000001',
    '24:00:00-15:59:59', B'101', B'', '08:00:2b:01:02:03:04:05', '10.0.0.0/8', '(NaN,-0)',
    'a:1A b:2', 'a & !b', 'x ', 'z', 4294967295, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', true,
    '1e-45', '-92233720368547758.08', -9223372036854775808, '<a>&amp;</a>');
CREATE TABLE keyed (m mood, d date, n numeric, b bytea, PRIMARY KEY (m, d, n, b));
INSERT INTO keyed SELECT 'ok', '2026-01-01'::date + i, i / 10.0, decode(md5(i::text), 'hex')
FROM generate_series(1, 500) i;
INSERT INTO keyed VALUES ('sad', 'infinity', 'NaN', ''), ('sad', '-infinity', 'Infinity', '\x00');
