UPDATE "Sch.ema ""x"""."Ta ble.1" SET "a" = "A", "A" = "A" || '"' WHERE "select" % 2 = 0;
DELETE FROM "Sch.ema ""x"""."Ta ble.1" WHERE "select" % 7 = 0;
UPDATE "order" SET "from" = -"from", "where'; DROP TABLE x; --" = '\N' WHERE "from" % 5 = 0;
UPDATE "1digit" SET "tab	here" = E'\\.\n';
INSERT INTO "sixty_three_bytes_long_name_for_a_table_that_is_cut_by_nobody_12"
VALUES ('a "b"'), ('ü'), ('');
