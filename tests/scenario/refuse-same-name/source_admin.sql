-- The source is the target of another migration of this name.
CREATE SCHEMA lockstep AUTHORIZATION lockstep;
CREATE TABLE lockstep.fact (migration text COLLATE "C" NOT NULL, kind text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL, version bigint NOT NULL, body json NOT NULL,
    PRIMARY KEY (migration, kind, key));
ALTER TABLE lockstep.fact OWNER TO lockstep;
INSERT INTO lockstep.fact VALUES ('@MIGRATION@', 'migration', 'self', 1, '{}');
