DO $$ BEGIN
    CREATE ROLE plain LOGIN PASSWORD 'plain-secret' IN ROLE shop_owner;
EXCEPTION WHEN duplicate_object THEN NULL; END $$;
GRANT CREATE ON DATABASE "@DATABASE@" TO plain;
