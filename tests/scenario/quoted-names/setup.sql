CREATE SCHEMA "Sch.ema ""x""";
CREATE TABLE "Sch.ema ""x"""."Ta ble.1" ("select" int, "A" text, "a" text, "ü.""ö" numeric,
    "$1" int, PRIMARY KEY ("select", "A"));
CREATE TABLE "order" ("from" int PRIMARY KEY, "where'; DROP TABLE x; --" text, "back\slash" text);
CREATE TABLE "1digit" ("2col" int PRIMARY KEY, "tab	here" text);
CREATE TYPE "En um" AS ENUM ('it''s', 'a "b"', 'ü', '');
CREATE TABLE "sixty_three_bytes_long_name_for_a_table_that_is_cut_by_nobody_12" (
    "sixty_three_bytes_long_name_for_a_column_that_is_cut_by_nobody1" "En um" PRIMARY KEY);
INSERT INTO "Sch.ema ""x"""."Ta ble.1" SELECT i, 'k' || i, NULL, i / 3.0, i
FROM generate_series(1, 500) i;
INSERT INTO "order" SELECT i, 'v' || i, '\' FROM generate_series(1, 500) i;
INSERT INTO "1digit" VALUES (1, 'x');
INSERT INTO "sixty_three_bytes_long_name_for_a_table_that_is_cut_by_nobody_12" VALUES ('it''s');
