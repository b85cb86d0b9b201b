CREATE TABLE foreign_table (id int PRIMARY KEY);
