#!/bin/bash
# The demonstration's customers: orders, payments, new names. Bounded: ROUNDS rounds, a pause between.
# A refused write (the source is closed during a cutover, and after it) is tried again.
set -u
statements='
START TRANSACTION;
INSERT INTO orders (customer, product, amount, note)
VALUES (1 + floor(rand() * 20000), @p := 1 + floor(rand() * 500), 1, uuid());
UPDATE products SET stock = stock - 1 WHERE id = @p;
COMMIT;
UPDATE orders SET state = "paid" WHERE id = last_insert_id();
UPDATE customers SET name = concat("Customer ", id, " ", left(uuid(), 4)) WHERE id = 1 + floor(rand() * 20000);
DELETE FROM orders WHERE id = 1 + floor(rand() * 150000);'
for ((round = 0; round < ${ROUNDS:-18000}; round++)); do
    mariadb -h "${SHOP_HOST:-mariadb}" -u app -p"$SHOP_PASSWORD" shop -e "$statements" 2>/dev/null ||
        sleep 1
    sleep "${PAUSE:-0.2}"
done
