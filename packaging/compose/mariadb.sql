-- The source: a small shop, lockstep's account with what it needs and no more, the application's.
CREATE TABLE customers (
    id int AUTO_INCREMENT PRIMARY KEY,
    name varchar(100) NOT NULL,
    email varchar(200) NOT NULL UNIQUE,
    active boolean NOT NULL DEFAULT true,
    created datetime(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)
);
CREATE TABLE products (
    id int AUTO_INCREMENT PRIMARY KEY,
    name varchar(100) NOT NULL,
    price decimal(10, 2) NOT NULL,
    stock int unsigned NOT NULL
);
CREATE TABLE orders (
    id bigint AUTO_INCREMENT PRIMARY KEY,
    customer int NOT NULL,
    product int NOT NULL,
    amount int NOT NULL,
    state enum('new', 'paid', 'sent') NOT NULL DEFAULT 'new',
    note text,
    placed timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    KEY (placed),
    FOREIGN KEY (customer) REFERENCES customers (id),
    FOREIGN KEY (product) REFERENCES products (id)
);
INSERT INTO customers (name, email)
SELECT concat('Customer ', seq), concat('c', seq, '@example.com') FROM seq_1_to_20000;
INSERT INTO products (name, price, stock)
SELECT concat('Product ', seq), seq % 97 + 0.99, 1000000 FROM seq_1_to_500;
INSERT INTO orders (customer, product, amount, state, note)
SELECT seq % 20000 + 1, seq % 500 + 1, seq % 9 + 1, 'sent', repeat(md5(seq), 4)
FROM seq_1_to_150000;

CREATE USER lockstep@'%' IDENTIFIED BY 'demo-lockstep';
-- All but SELECT is for the way back: to write and empty tables, to set AUTO_INCREMENT (ALTER), to see
-- triggers.
GRANT SELECT, INSERT, UPDATE, DELETE, DROP, ALTER, TRIGGER ON shop.* TO lockstep@'%';
GRANT ALL ON lockstep.* TO lockstep@'%';
GRANT REPLICATION SLAVE, BINLOG MONITOR, SLAVE MONITOR, READ_ONLY ADMIN, CONNECTION ADMIN, RELOAD,
    PROCESS, SHOW DATABASES, CREATE USER ON *.* TO lockstep@'%';
GRANT SELECT ON mysql.global_priv TO lockstep@'%';
-- To see which procedures and events would come past a closed fence.
GRANT SELECT ON mysql.proc TO lockstep@'%';
GRANT SELECT ON mysql.event TO lockstep@'%';
-- To see whether the applications may write to it.
GRANT SELECT ON mysql.db TO lockstep@'%';
GRANT SELECT ON mysql.tables_priv TO lockstep@'%';

-- Last: compose.yaml takes this account as the sign that all is there.
CREATE USER app@'%' IDENTIFIED BY 'demo-app';
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.* TO app@'%';
