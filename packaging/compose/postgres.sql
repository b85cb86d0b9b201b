-- The target: empty, with lockstep's role and the application's.
CREATE ROLE app LOGIN PASSWORD 'demo-app';
CREATE ROLE lockstep LOGIN REPLICATION PASSWORD 'demo-lockstep';
GRANT pg_signal_backend TO lockstep;
GRANT SET ON PARAMETER session_replication_role TO lockstep;
GRANT CREATE ON DATABASE shop TO lockstep;
GRANT CREATE ON SCHEMA public TO lockstep WITH GRANT OPTION;
GRANT USAGE ON SCHEMA public TO app;
ALTER DEFAULT PRIVILEGES FOR ROLE lockstep GRANT ALL ON TABLES TO app;
ALTER DEFAULT PRIVILEGES FOR ROLE lockstep GRANT ALL ON SEQUENCES TO app;
